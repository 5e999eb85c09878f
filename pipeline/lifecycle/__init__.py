"""What happens to versions after they are registered: promoted, archived, cleaned up."""
