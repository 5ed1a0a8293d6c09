"""Where documents come from, one class per kind of source."""

from data_jobs.config import FolderSource, PythonPackagesSource, SourceConfig
from data_jobs.connectors.folder import FolderConnector
from data_jobs.connectors.item import Connector
from data_jobs.connectors.python_packages import PythonPackagesConnector

__all__ = ["connector_for"]


def connector_for(source: SourceConfig) -> Connector:
    match source:
        case FolderSource():
            return FolderConnector(source)
        case PythonPackagesSource():
            return PythonPackagesConnector(source)
