"""Certificates made by openssl: an authority of its own for each test, and what it has signed."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from real_parts import missing_part

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
_NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


@dataclass(frozen=True)
class Authority:
    """`root` is its certificate in PEM."""

    directory: Path
    name: str = "authority"

    @property
    def root(self) -> Path:
        return self.directory / f"{self.name}.crt"

    @property
    def key(self) -> Path:
        return self.directory / f"{self.name}.key"

    def signed(self, name: str, subject: str) -> tuple[Path, Path]:
        """Certificate and key, for loopback, with a subject such as /O=Acme/CN=bot."""
        cert, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        signer = ["-CA", str(self.root), "-CAkey", str(self.key), "-addext", _NAMES]
        _openssl("req", "-x509", *_KEY, *signer, "-subj", subject, "-keyout", str(key), "-out", str(cert))
        return cert, key


def authority(directory: Path, name: str = "authority") -> Authority:
    if shutil.which("openssl") is None:
        missing_part("openssl is not installed")
    made = Authority(directory, name)
    _openssl("req", "-x509", *_KEY, "-subj", f"/CN={name}", "-keyout", str(made.key), "-out", str(made.root))
    return made


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
