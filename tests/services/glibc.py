"""A newer C library beside the system's, for the MongoDB engine, which needs 2.38; Debian 12 has 2.36."""

import os
import platform
import re
import shutil
from pathlib import Path

from tests.services.install import installed, run, tool
from tests.services.server import UnavailableError

NEEDED = (2, 38)
# The releases of the same distribution to take it from. Where to download is what this machine's apt says already.
NEWER_RELEASE = {"debian": "trixie", "ubuntu": "noble"}
PACKAGES = ("libc6", "libgcc-s1", "libstdc++6")
PURPOSE = "MongoDB's engine"


def loader() -> list[str]:
    """What to put before a program to run it on a C library that is new enough; nothing, where the system's is."""
    if _system_version() >= NEEDED:
        return []
    folder = installed("glibc", _build, Path(__file__))
    interpreter = next(folder.glob("usr/lib/*/ld-linux-*.so.*"))
    return [str(interpreter), "--library-path", str(interpreter.parent)]


def _system_version() -> tuple[int, int]:
    version = re.fullmatch(r"glibc (\d+)\.(\d+)", os.confstr("CS_GNU_LIBC_VERSION") or "")
    if version is None:
        raise UnavailableError(f"{PURPOSE} needs glibc {_text(NEEDED)} or later, and this system has another C library")
    return int(version[1]), int(version[2])


def _build(folder: Path) -> None:
    """Download the packages with lists and settings of our own and unpack them; nothing on the system changes."""
    system = platform.freedesktop_os_release()
    release = NEWER_RELEASE.get(system["ID"])
    if release is None:
        raise UnavailableError(
            f"{PURPOSE} needs glibc {_text(NEEDED)} or later; {system['ID']} has {_text(_system_version())}"
        )
    apt_get, dpkg = tool("apt-get", PURPOSE), tool("dpkg", PURPOSE)
    apt = folder / "apt"
    for part in ("lists/partial", "archives/partial"):
        (apt / part).mkdir(parents=True)
    targets = [apt_get, "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"]
    mirrors = [line.split() for line in run(targets, folder, PURPOSE).splitlines()]
    mirror = next((m[2] for m in mirrors if m[:2] == [system["VERSION_CODENAME"], "main"]), None)
    if mirror is None:
        raise UnavailableError(
            f"{PURPOSE} cannot be installed: apt has no source for {system['VERSION_CODENAME']} main"
        )
    (apt / "sources.list").write_text(f"deb {mirror} {release} main\n")
    (apt / "apt.conf").write_text(
        f'Dir::State::lists "{apt}/lists";\n'
        f'Dir::Etc::sourcelist "{apt}/sources.list";\n'
        'Dir::Etc::sourceparts "-";\n'
        f'Dir::Cache "{apt}";\n'
        'APT::Sandbox::User "";\n'
    )
    ours = {"APT_CONFIG": str(apt / "apt.conf")}
    run([apt_get, "-qq", "update"], folder, PURPOSE, ours)
    run([apt_get, "-qq", "download", *PACKAGES], folder, PURPOSE, ours)
    for package in folder.glob("*.deb"):
        run([dpkg, "-x", str(package), str(folder)], folder, PURPOSE)
        package.unlink()
    shutil.rmtree(apt)


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
