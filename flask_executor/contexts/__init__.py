"""What a call sees: taken where it is submitted, restored where it runs."""

from .flask_versions import current_app as current_app
from .pickling import dumps as dumps
from .request import Origin as Origin
from .serving import at_each_request as at_each_request
from .snapshot import PortableSnapshot as PortableSnapshot
from .snapshot import Snapshot as Snapshot
from .uploads import Upload as Upload
from .uploads import keep_uploads as keep_uploads
from .uploads import open_uploads as open_uploads
