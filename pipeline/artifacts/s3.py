"""Artifacts in MinIO or any other S3 server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

from minio.error import S3Error

from pipeline.artifacts import ListedArtifact, NewArtifact
from pipeline.artifacts.keys import folder_of, key_of, path_of
from pipeline.databases.s3 import connect, transient
from pipeline.errors import NotFoundError, RejectedError
from pipeline.jobs import StoredArtifact

READ_TIMEOUT_S = 30.0
PARALLEL = 4
PART_BYTES = 16 * 1024 * 1024  # held in memory, PARALLEL times


class S3Store:
    """Objects in one bucket.  An object is visible only once all of it has arrived, so a put can be repeated.
    Thread-safe.
    """

    scheme = "s3"

    def __init__(
        self, endpoint: str, access_key: str, secret_key: str, bucket: str, secure: bool, region: str | None = None
    ) -> None:
        self._bucket = bucket
        self._endpoint = endpoint
        self._client = connect(
            endpoint,
            access_key,
            secret_key,
            secure=secure,
            region=region,
            read_timeout_s=READ_TIMEOUT_S,
            connections=PARALLEL,
        )

    def prepare(self) -> None:
        with self._service("creating the bucket"):
            if self._client.bucket_exists(self._bucket):
                return
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise

    def put(self, artifacts: Sequence[NewArtifact]) -> Mapping[str, StoredArtifact]:
        with ThreadPoolExecutor(PARALLEL, "s3-put") as threads:
            return dict(threads.map(self._put, artifacts))

    def fetch(self, uri: str, target: Path) -> None:
        path = self._path(uri)
        with self._service("fetching an artifact"):
            try:
                response = self._client.get_object(self._bucket, path)
            except S3Error as error:
                if error.code == "NoSuchKey":
                    raise NotFoundError(f"there is no artifact {uri}") from None
                raise
            try:
                with target.open("wb") as copy:
                    for piece in response.stream(1 << 20):
                        copy.write(piece)
            finally:
                response.close()
                response.release_conn()

    def delete(self, uri: str) -> None:
        with self._service("deleting an artifact"):
            self._client.remove_object(self._bucket, self._path(uri))

    def list(self, prefix: str = "") -> Sequence[str]:
        return [one.uri for one in self.listing(prefix)]

    def listing(self, prefix: str = "") -> Sequence[ListedArtifact]:
        found = []
        with self._service("listing artifacts"):
            for item in self._client.list_objects(self._bucket, folder_of(prefix), recursive=True):
                path, at = str(item.object_name), item.last_modified
                key = key_of(path)
                if not item.is_dir and at is not None and key.startswith(prefix):
                    found.append(ListedArtifact(key, self._uri(path), item.size or 0, at))
        return found

    def _put(self, artifact: NewArtifact) -> tuple[str, StoredArtifact]:
        path = path_of(artifact.key)
        with artifact.path.open("rb") as file, self._service("storing an artifact"):
            self._client.put_object(
                self._bucket,
                path,
                file,
                artifact.size_bytes,
                "application/zip",
                {"sha256": artifact.sha256},
                part_size=PART_BYTES,
                num_parallel_uploads=1,
            )
        return artifact.key, StoredArtifact(self._uri(path), artifact.sha256, artifact.size_bytes)

    def _uri(self, path: str) -> str:
        return f"s3://{self._bucket}/{path}"

    def _path(self, uri: str) -> str:
        begin = f"s3://{self._bucket}/"
        if not uri.startswith(begin) or uri == begin:
            raise RejectedError(f"{uri} is not an artifact of this store: its uris begin with {begin}")
        return uri.removeprefix(begin)

    def _service(self, doing: str) -> AbstractContextManager[None]:
        return transient("minio", f"{doing} in {self._bucket} at {self._endpoint}")
