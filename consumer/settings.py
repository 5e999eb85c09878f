"""Defines every setting of the worker: its name, its default, and the values it takes.

Only `load_settings` reads the environment; a `Settings` made directly reads nothing.
`python -m consumer.settings` prints the table that docs/settings.md shows.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic.config import JsonDict
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from consumer.system.machine import available_cpus, available_memory_bytes
from pipeline.errors import did_you_mean

WORKER_NEEDS = ("MONGODB_URL", "KAFKA_BOOTSTRAP_SERVERS")


class SettingsError(Exception):
    """One line for each missing or wrong setting: its name, and what it takes."""


def load_settings(
    environ: Mapping[str, str] | None = None,
    env_file: Path | None = Path(".env"),
    *,
    needs: Collection[str] = WORKER_NEEDS,
    **overrides: Any,
) -> Settings:
    """Read the settings. In order of precedence: `overrides` (by field name), environment, file, defaults.

    Args:
        environ: replaces the process's environment.
        env_file: may be missing.
        needs: names that have no default and must be set; the embedded worker needs none.

    Raises:
        SettingsError: something is missing or wrong, or one of the overrides is no setting.
    """
    environment = EnvSettingsSource(Settings)
    if environ is not None:
        environment.env_vars = {name.lower(): value for name, value in environ.items() if value}
    if unknown := sorted(overrides.keys() - Settings.model_fields.keys()):
        raise SettingsError("\n".join(map(_unknown, unknown)))
    values = {**DotEnvSettingsSource(Settings, env_file=env_file)(), **environment(), **overrides}
    lines = [f"{name} is not set; it takes {_takes(name)}" for name in needs if not values.get(name.lower())]
    try:
        settings = Settings(**values)
    except ValidationError as error:
        # A default that pydantic could not compute because of another setting's error is not an error itself.
        wrong = [detail for detail in error.errors() if detail["type"] != "default_factory_not_called"]
        raise SettingsError("\n".join([*lines, *map(_line, wrong)])) from None
    if lines:
        raise SettingsError("\n".join(lines))
    return settings


_UNITS_BYTES = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip
_UNITS_S = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def size_bytes(text: object) -> object:
    """`512MiB`, `2GB` or plain bytes, as bytes.  K, M and G alone count as Kubernetes' Ki, Mi and Gi do."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text.strip()) if isinstance(text, str) else None
    if match is None:
        return text
    number, unit = match[1], match[2].upper()
    unit = f"{unit}B" if unit in ("KI", "MI", "GI", "TI") else unit
    return int(float(number) * _UNITS_BYTES[unit]) if unit in _UNITS_BYTES else text


def duration_s(text: object) -> object:
    """`90d`, `10m`, `1h30m` or plain seconds, as seconds."""
    if not isinstance(text, str) or not re.fullmatch(r"(\d+(?:\.\d+)?\s*(ms|[smhd])?\s*)+", text.strip()):
        return text
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|[smhd])?", text)
    if len(parts) > 1 and not all(unit for _, unit in parts):
        return text
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def _upper(text: object) -> object:
    return text.upper() if isinstance(text, str) else text


def _json(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return text


def _trains(quotas: dict[str, dict[str, int | None]]) -> dict[str, dict[str, int | None]]:
    if any(quota.get("trainings") == 0 for quota in quotas.values()):
        raise ValueError("a project that may train nothing would wait for ever")
    return quotas


Size = Annotated[int, BeforeValidator(size_bytes)]
Duration = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(duration_s)]
ProjectName = Annotated[str, Field(pattern=r"^([A-Za-z0-9._-]{1,128}|\*)$")]
Limit = Annotated[int, Field(ge=0), BeforeValidator(size_bytes)]
ProjectQuotas = Annotated[
    dict[ProjectName, dict[Literal["models", "bytes", "trainings"], Limit | None]],
    NoDecode,
    BeforeValidator(_json),
    AfterValidator(_trains),
]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(_upper)]
SecurityProtocol = Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)]
SaslMechanism = Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], BeforeValidator(_upper)]


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / f"tensorfleet-{os.getuid()}"


def _hostname(_: dict[str, Any]) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:128] or "worker"


def _concurrency(values: dict[str, Any]) -> int:
    return max(1, available_cpus() // int(values.get("cpus_per_training", 1)))


def _training_memory(values: dict[str, Any]) -> int:
    return available_memory_bytes() * 8 // 10 // int(values.get("worker_concurrency", 1))


def _drain_timeout(values: dict[str, Any]) -> float:
    return float(values.get("max_training_time", 0)) + 30


class Shown(NamedTuple):
    """A default that depends on the machine: its description, and the function that computes it from other settings."""

    words: str
    found: Callable[[dict[str, Any]], Any]


def _setting(default: Any, meaning: str, takes: str, **limits: Any) -> Any:
    extra: JsonDict = {"takes": takes, "shown": default.words if isinstance(default, Shown) else _words(default)}
    if isinstance(default, Shown):
        return Field(default_factory=default.found, description=meaning, json_schema_extra=extra, **limits)
    return Field(default, description=meaning, json_schema_extra=extra, validate_default=True, **limits)


def _words(default: Any) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None or default == SecretStr("") else str(default)


_SIZE = "a size such as 512MiB, 2GB or plain bytes"
_DURATION = "a duration such as 90d, 10m or plain seconds"
_NAME = "1 to 128 of the characters A-Z a-z 0-9 . _ -"
_NAME_PATTERN = r"^[A-Za-z0-9._-]{1,128}$"
_BROKER = r"(\[[0-9A-Fa-f:]+\]|[^\s,/:]+):\d+"
_COUNT = "a whole number from 1"


class Settings(BaseSettings):
    """The worker's settings.  Immutable; str and repr hide secrets.  The field names are those of the environment
    variables, in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, env_file_encoding="utf-8")

    port: int = _setting(
        8000, "HTTP port for /health, /livez and /metrics; 0 takes a free one.", "a port, 0 to 65535", ge=0, le=65535
    )
    log_level: LogLevel = _setting(
        "INFO", "Least severe level that is logged; DEBUG includes every MongoDB command, without values.",
        "DEBUG, INFO, WARNING, ERROR or CRITICAL",
    )  # fmt: skip
    log_format: Literal["auto", "json", "console"] = _setting(
        "auto", "One JSON object a line, or text for people; auto looks whether a terminal reads.",
        "auto, json or console",
    )  # fmt: skip

    mongodb_url: SecretStr = _setting(
        SecretStr(""), "MongoDB with the model registry, the ledger, small artifacts and datasets. Required.",
        "mongodb://… or mongodb+srv://…",
    )  # fmt: skip
    mongodb_db: str = _setting(
        "tensorfleet", "Database in it.", "a name of 1 to 63 letters, digits, _ and -", pattern=r"^[A-Za-z0-9_-]{1,63}$"
    )
    model_registry_collection: str = _setting(
        "model_registry", "Collection of the registered models.", _NAME, pattern=_NAME_PATTERN
    )

    kafka_bootstrap_servers: str = _setting(
        "", "Brokers to start from. Required.", "host:port, several with commas between",
        pattern=rf"^$|^{_BROKER}(\s*,\s*{_BROKER})*$",
    )  # fmt: skip
    kafka_group_id: str = _setting(
        "ml-worker", "Consumer group that all workers of one fleet share.", _NAME, pattern=_NAME_PATTERN
    )
    kafka_group_protocol: Literal["classic", "consumer"] = _setting(
        "classic", "Group protocol: classic (cooperative-sticky) or consumer (KIP-848, Kafka 4).", "classic or consumer"
    )
    kafka_static_membership: bool = _setting(
        False, "Join the group as WORKER_ID (classic only): a worker that is back within KAFKA_SESSION_TIMEOUT_MS has "
        "its partitions again, and no other worker notices.",
        "true or false",
    )  # fmt: skip
    kafka_session_timeout_ms: int = _setting(
        10_000, "A worker silent for so long loses its partitions (classic only; else the broker decides).",
        "milliseconds, 1000 to 1800000", ge=1_000, le=1_800_000,
    )  # fmt: skip
    kafka_max_poll_interval_ms: int = _setting(
        300_000, "A worker that stands still for so long loses its partitions; trainings may take longer.",
        "milliseconds, 10000 to 86400000", ge=10_000, le=86_400_000,
    )  # fmt: skip
    kafka_security_protocol: SecurityProtocol = _setting(
        "PLAINTEXT", "Protocol of the connections to the brokers.", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    kafka_sasl_mechanism: SaslMechanism | None = _setting(
        None, "With SASL: the mechanism.", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"
    )
    kafka_sasl_username: str | None = _setting(None, "With SASL: the user.", "text")
    kafka_sasl_password: SecretStr | None = _setting(None, "With SASL: the password.", "text")
    kafka_ssl_ca_location: Path | None = _setting(
        None, "With SSL: a file of trusted certificates, in place of the system's.", "the path of a PEM file"
    )
    topic_prefix: str = _setting(
        "", "Put before every topic's name, so that fleets can share a cluster.",
        "up to 100 of the characters A-Z a-z 0-9 . _ -", pattern=r"^[A-Za-z0-9._-]{0,100}$",
    )  # fmt: skip
    schema_registry_url: str | None = _setting(
        None, "Confluent-compatible schema registry; without it events carry Avro single-object encoding.",
        "http://… or https://…", pattern=r"^https?://\S+$", repr=False,
    )  # fmt: skip

    minio_endpoint: str | None = _setting(
        None, "MinIO or another S3 for large artifacts, which else go to GridFS, and for datasets that stay in S3.",
        "host or host:port, without http://", pattern=r"^[^\s/]+$",
    )  # fmt: skip
    minio_access_key: SecretStr | None = _setting(None, "With MINIO_ENDPOINT: the access key.", "text")
    minio_secret_key: SecretStr | None = _setting(None, "With MINIO_ENDPOINT: the secret key.", "text")
    minio_bucket: str = _setting(
        "models", "Bucket of the artifacts.", "3 to 63 of the characters a-z 0-9 . -",
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
    )  # fmt: skip
    minio_secure: bool = _setting(False, "Whether connections to MinIO use TLS.", "true or false")
    artifact_gridfs_limit: Size = _setting(
        "4MiB", "Artifacts up to this size go to GridFS, larger ones to MinIO.", _SIZE, ge=0
    )

    worker_id: str = _setting(
        Shown("the host's name", _hostname),
        "Names this worker; must be its own among all workers, and should survive a restart.",
        _NAME,
        pattern=_NAME_PATTERN,
    )
    cpus_per_training: int = _setting(1, "CPU threads that one training may use.", _COUNT, ge=1)
    worker_concurrency: int = _setting(
        Shown("CPUs ÷ CPUS_PER_TRAINING", _concurrency), "Trainings at the same time.", "a whole number from 1 to 1024",
        ge=1, le=1024,
    )  # fmt: skip
    max_training_time: Duration = _setting(
        "300", "Seconds a training may take, unless its request says otherwise.", _DURATION, gt=0
    )
    max_training_memory: Size = _setting(
        Shown("80 % of the memory ÷ WORKER_CONCURRENCY", _training_memory),
        "Memory a training may take, unless its request says otherwise.",
        _SIZE + ", from 64MiB",
        ge=64 * 2**20,
    )
    dataset_load_time: Duration = _setting(
        "300", "Seconds that reading the file of a dataset may take; waiting for a CPU does not count.", _DURATION, gt=0
    )
    max_attempts: int = _setting(
        3, "Attempts at a request whose trainer crashes; after the last it ends FAILED.", _COUNT, ge=1
    )
    max_worker_losses: int = _setting(
        10, "Workers that may die with a request in hand; after the last it ends FAILED.", _COUNT, ge=1
    )
    look_ahead: int = _setting(
        10_000, "Requests a worker holds, before it reads on for projects that have few of them only.",
        "a whole number from 1 to 16000", ge=1, le=16_000,
    )  # fmt: skip
    tensorfleet_project: str | None = _setting(
        None, "Commands show and change this project only; --project overrides it.",
        _NAME, pattern=_NAME_PATTERN,
    )  # fmt: skip
    project_quotas: ProjectQuotas = _setting(
        {}, "The most of each project: models (registered, not archived), bytes of their files, trainings in a worker.",
        'JSON such as {"*": {"models": 1000, "bytes": "10GB", "trainings": 4}, "risk": {"models": null}}',
    )  # fmt: skip
    ledger_retention: Duration = _setting(
        "90d", "How long a request_id is remembered after its outcome.", _DURATION + ", from 1h", ge=3600
    )
    delivery: Literal["exactly-once", "at-least-once"] = _setting(
        "exactly-once",
        "Kafka transactions, or plain commits that may repeat an event.",
        "exactly-once or at-least-once",
    )
    drain_timeout: Duration = _setting(
        Shown("MAX_TRAINING_TIME + 30", _drain_timeout),
        "After SIGTERM, how long running trainings may go on.",
        _DURATION,
        ge=0,
    )

    search_backend: Literal["local", "dask"] = _setting(
        "local", "Where searches fit their candidates: in the trainer, or on a Dask cluster.", "local or dask"
    )
    dask_scheduler: str | None = _setting(
        None, "With SEARCH_BACKEND=dask: the scheduler of the cluster.", "host:port, or tcp://… or tls://… with a port",
        pattern=rf"^((tcp|tls)://)?{_BROKER}$",
    )  # fmt: skip

    dataset_cache_dir: Path = _setting(
        Shown("tensorfleet-UID/datasets in the system's temporary folder", lambda _: _folder() / "datasets"),
        "Datasets that were read, for all trainers of the machine.",
        "a folder",
    )
    dataset_cache_bytes: Size = _setting("5GiB", "Size that cache is kept to.", _SIZE, ge=0)
    spool_dir: Path = _setting(
        Shown("tensorfleet-UID/spool in the system's temporary folder", lambda _: _folder() / "spool"),
        "Model files on their way from trainers to the artifact store, a folder for each worker.",
        "a folder",
    )
    data_dir: Path = _setting(
        Path("tensorfleet-data"), "What `tensorfleet demo` and `tensorfleet dev` keep.", "a folder"
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if wrong := _contradictions(self):
            raise ValueError("\n".join(wrong))
        return self

    @property
    def embedded(self) -> bool:
        """Whether all stores are on this machine, in DATA_DIR."""
        return not self.mongodb_url.get_secret_value()


def _contradictions(settings: Settings) -> list[str]:
    together: list[tuple[str, tuple[str, ...]]] = []
    if settings.kafka_security_protocol.startswith("SASL"):
        sasl = ("KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD")
        together.append((f"KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol}", sasl))
    if settings.minio_endpoint:
        together.append(("MINIO_ENDPOINT", ("MINIO_ACCESS_KEY", "MINIO_SECRET_KEY")))
    if settings.search_backend == "dask":
        together.append(("SEARCH_BACKEND=dask", ("DASK_SCHEDULER",)))
    lines = [
        f"{name} is not set; {cause} needs it; it takes {_takes(name)}"
        for cause, names in together
        for name in names
        if not getattr(settings, name.lower())
    ]
    if settings.search_backend == "dask" and find_spec("distributed") is None:
        lines.append("SEARCH_BACKEND=dask needs a worker with the extra dask; local needs nothing")
    if settings.mongodb_url and not re.match(r"mongodb(\+srv)?://\S+$", settings.mongodb_url.get_secret_value()):
        lines.append(f"MONGODB_URL takes {_takes('MONGODB_URL')}")
    classic = settings.kafka_group_protocol == "classic"
    if classic and settings.kafka_session_timeout_ms > settings.kafka_max_poll_interval_ms:
        lines.append("KAFKA_SESSION_TIMEOUT_MS takes milliseconds up to KAFKA_MAX_POLL_INTERVAL_MS")
    if settings.kafka_static_membership and not classic:
        # There, a worker that restarts within its session is refused for good: UNRELEASED_INSTANCE_ID.
        lines.append("KAFKA_STATIC_MEMBERSHIP takes false with KAFKA_GROUP_PROTOCOL=consumer")
    return lines


def _takes(name: str) -> str:
    extra = Settings.model_fields[name.lower()].json_schema_extra
    return str(extra["takes"]) if isinstance(extra, dict) else ""


def _line(error: Mapping[str, Any]) -> str:
    if not error["loc"]:
        return str(error["ctx"]["error"])
    name = str(error["loc"][0]).upper()
    secret = "Secret" in str(Settings.model_fields[name.lower()].annotation)
    return f"{name} takes {_takes(name)}" + ("" if secret else f"; it is {str(error['input'])!r}")


def _unknown(name: str) -> str:
    return f"there is no setting {name}" + (did_you_mean(name, Settings.model_fields) or "; see docs/settings.md")


def settings_table() -> str:
    """All settings as a Markdown table."""
    rows = ["| name | default | takes | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        extra = field.json_schema_extra
        shown = str(extra["shown"]) if isinstance(extra, dict) else ""
        default = shown if field.default_factory or not shown else f"`{shown}`"
        rows.append(f"| `{name.upper()}` | {default} | {_takes(name)} | {field.description} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(settings_table() + "\n")
