"""Where S3 is and who we are there, found as every AWS tool finds it: profiles, SSO, roles, environment."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import boto3
import botocore.exceptions
from botocore.configprovider import ConfiguredEndpointProvider
from obstore.auth.boto3 import Boto3CredentialProvider

from artfs.config import check_endpoint
from artfs.errors import AccessDenied, ConfigurationError

_DEFAULT_REGION: Final = "us-east-1"  # servers other than Amazon's take any; Amazon's name the right one in the error
_CREDENTIAL_TTL: Final = timedelta(minutes=10)
"""botocore renews credentials 10 minutes before they expire at the latest; so what it gives out lasts that long."""


def settings(url: str, endpoint: str | None) -> dict[str, Any]:
    """Arguments of obstore's ``from_url`` for an s3 URL; may ask the metadata service of the machine.

    The endpoint is the one given, else ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL`` or the profile's. Raises
    AccessDenied, ConfigurationError.
    """
    try:
        session = boto3.Session()
        credentials = Boto3CredentialProvider(session, ttl=_CREDENTIAL_TTL)
    except ValueError:  # what obstore's provider makes of "none found"
        raise AccessDenied(what=f"the object store {url}", why="no AWS credentials were found") from None
    except botocore.exceptions.ProfileNotFound as error:
        raise ConfigurationError(why=str(error)) from None
    except botocore.exceptions.BotoCoreError as error:
        raise AccessDenied(what=f"the object store {url}", why=str(error).rstrip(".")) from None
    core = session._session  # noqa: SLF001  boto3 offers no other way to the profile's endpoint without a client
    found = endpoint or _endpoint(core)
    bucket = urlsplit(url).netloc
    config = {
        "region": session.region_name or os.environ.get("AWS_REGION") or _DEFAULT_REGION,
        # Path style wherever names of buckets may not be names of hosts, or would not match a certificate.
        "virtual_hosted_style_request": not found and "." not in bucket,
    }
    return {"config": config | ({"endpoint": found} if found else {}), "credential_provider": credentials}


def _endpoint(core: Any) -> str | None:
    found = ConfiguredEndpointProvider(core.full_config, core.get_scoped_config(), "s3").provide()
    try:
        return check_endpoint(found) if found else None  # obstore panics at one that is no URL
    except ConfigurationError as error:
        raise ConfigurationError(why=f"AWS's endpoint URL: {error.fields['why']}") from error
