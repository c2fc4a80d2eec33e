"""An account's SageMaker, S3 and CloudWatch, and what goes up to S3 and comes back."""

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from playpen import artifact
from playpen.config import PlaypenError
from playpen.machine import SageMaker
from playpen.progress import tqdm


@dataclass(frozen=True)
class Account:
    """Where jobs run, and the bucket that all goes through."""

    settings: SageMaker
    boto: Any
    """A boto3 session."""

    @cached_property
    def jobs(self) -> Any:
        """The client of SageMaker."""
        return self.boto.client("sagemaker")

    @cached_property
    def s3(self) -> Any:
        """The client of S3."""
        return self.boto.client("s3")

    @cached_property
    def logs(self) -> Any:
        """The client of CloudWatch's logs."""
        return self.boto.client("logs")

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.settings.needed("bucket")

    def key(self, base: str, part: str) -> str:
        """Return the key in the bucket of one part of what belongs to the jobs called `base`."""
        return "/".join(filter(None, (self.settings.prefix.strip("/"), base, part)))

    def address(self, base: str, part: str) -> str:
        """Return that key as an address."""
        return f"s3://{self.bucket}/{self.key(base, part)}"


def open_account(settings: SageMaker) -> Account:
    """Return the account of these settings; raises PlaypenError when one is missing, or the packages are."""
    settings.needed("role")
    try:
        import boto3
    except ImportError as error:
        raise PlaypenError(f"the launcher sagemaker needs boto3 ({error}): pip install 'playpen[sagemaker]'") from None
    with in_one_line():
        boto = boto3.Session(region_name=settings.setting("region"))
    if boto.region_name is None:
        raise PlaypenError("the launcher sagemaker needs a region: give --machine.sagemaker.region, or set AWS_DEFAULT_REGION")
    return Account(settings, boto)


@contextmanager
def in_one_line() -> Iterator[None]:
    """Tell in one line what AWS refuses, and that it cannot be reached."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError, Boto3Error) as error:
        raise PlaypenError(f"AWS: {' '.join(str(error).split())}") from None


def upload(account: Account, inputs: dict[str, Path], base: str) -> None:
    """Send files and directories to S3 under the names that they go by, but for files that are there."""
    files = [(key, file) for key, file in _files(account, inputs, base) if not _is_there(account, key, file)]
    with tqdm(total=sum(f.stat().st_size for _, f in files), unit="B", unit_scale=True, desc="upload", disable=None) as bar:
        for key, file in files:
            account.s3.upload_file(str(file), account.bucket, key, Callback=bar.update)


def _files(account: Account, inputs: dict[str, Path], base: str) -> Iterator[tuple[str, Path]]:
    for place, path in inputs.items():
        if path.is_file():
            yield account.key(base, f"inputs/{place}"), path
        for file in sorted(f for f in path.rglob("*") if f.is_file()):
            yield account.key(base, f"inputs/{place}/{file.relative_to(path).as_posix()}"), file


def _is_there(account: Account, key: str, file: Path) -> bool:
    """Say whether a file is in the bucket: `base` names its content, so that one as long is the same."""
    from botocore.exceptions import ClientError

    try:
        return account.s3.head_object(Bucket=account.bucket, Key=key)["ContentLength"] == file.stat().st_size
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return False
        raise


def fetch_archive(account: Account, address: str, folder: Path) -> bool:
    """Unpack a job's output into a folder; say whether it is there still."""
    place = urlparse(address)
    key = place.path.lstrip("/")
    if (size := _objects(account, place.netloc, key).get(key)) is None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.tar.gz"
    with tqdm(total=size, unit="B", unit_scale=True, desc="download", disable=None) as bar:
        account.s3.download_file(place.netloc, key, str(file), Callback=bar.update)
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
    file.unlink()
    return True


def fetch_tree(account: Account, prefix: str, folder: Path) -> None:
    """Bring a finished artifact of the bucket into a folder; one without a manifest is left where it is."""
    found = _objects(account, account.bucket, prefix.rstrip("/") + "/")
    if f"{prefix}/{artifact.MANIFEST}" not in found:
        return
    with tqdm(total=sum(found.values()), unit="B", unit_scale=True, desc="download", disable=None) as bar:
        for key in found:
            file = folder / os.path.relpath(key, prefix)
            file.parent.mkdir(parents=True, exist_ok=True)
            account.s3.download_file(account.bucket, key, str(file), Callback=bar.update)


def _objects(account: Account, bucket: str, prefix: str) -> dict[str, int]:
    """Return the sizes of all objects whose keys begin so."""
    pages = account.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}
