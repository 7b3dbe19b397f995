"""The certificate authority of the stub."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["local_authority"]


@contextmanager
def local_authority() -> Iterator[tuple[ssl.SSLContext, str]]:
    """Return a TLS context for 127.0.0.1 and the certificate file of its authority."""
    import trustme

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with TemporaryDirectory() as folder:
        trusted = Path(folder, "authority.pem")
        authority.cert_pem.write_to_path(trusted)
        yield context, str(trusted)
