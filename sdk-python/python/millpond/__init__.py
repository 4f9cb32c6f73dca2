"""The client of Millpond, an edge broker over QUIC.

::

    import millpond

    with millpond.connect(url) as client:
        client.admin.create_topic("readings", partitions=2)
        with client.producer("readings") as producer:
            producer.send(key="device-7", value="21.4", headers={"unit": "C"})
        for record in client.consumer("readings", start="beginning"):
            print(record.timestamp, record.key, record.value)

`millpond` blocks, `millpond.aio` is awaited; the names are the same. `millpond.errors` has the exceptions, all of them
`MillpondError`, `millpond.admin` what admin calls take and give, `millpond.testing` a broker for tests.
"""

from millpond import admin, aio, errors
from millpond._admin_blocking import Admin, Transforms
from millpond._blocking import Client, Consumer, Producer, connect
from millpond._core import Batch, Deliveries, Delivery, Places, Record, RecordPlace, __version__
from millpond._options import ClientSettings, ConsumerSettings, ProducerSettings
from millpond._records import NewRecord
from millpond._states import PartitionState, ProducerStats
from millpond.errors import (
    AlreadyExistsError,
    ClosedError,
    ConnectionError,
    CorruptError,
    DecodeError,
    DeniedError,
    EncodeError,
    ForkedError,
    InternalError,
    InUseError,
    InvalidError,
    MillpondError,
    NotFoundError,
    OffsetOutOfRangeError,
    SequenceError,
    StorageError,
    TimeoutError,
    TooLargeError,
    TransformError,
    UnavailableError,
    WrongTypeError,
)
from millpond.serde import Serde, json, model, raw, string

__all__ = [
    "Admin",
    "AlreadyExistsError",
    "Batch",
    "Client",
    "ClientSettings",
    "ClosedError",
    "ConnectionError",
    "Consumer",
    "ConsumerSettings",
    "CorruptError",
    "DecodeError",
    "Deliveries",
    "Delivery",
    "DeniedError",
    "EncodeError",
    "ForkedError",
    "InUseError",
    "InternalError",
    "InvalidError",
    "MillpondError",
    "NewRecord",
    "NotFoundError",
    "OffsetOutOfRangeError",
    "PartitionState",
    "Places",
    "Producer",
    "ProducerSettings",
    "ProducerStats",
    "Record",
    "RecordPlace",
    "SequenceError",
    "Serde",
    "StorageError",
    "TimeoutError",
    "TooLargeError",
    "TransformError",
    "Transforms",
    "UnavailableError",
    "WrongTypeError",
    "__version__",
    "admin",
    "aio",
    "connect",
    "errors",
    "json",
    "model",
    "raw",
    "string",
]
