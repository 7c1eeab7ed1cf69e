"""Where everything lies on a host: one folder, known names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from deploy.docker.compose import Place

STAMP = "%Y-%m-%d_%H-%M-%S"


@dataclass(frozen=True)
class Layout:
    """The paths below the root of an application on its host."""

    root: str

    @property
    def backups(self) -> str:
        """Return the folder of the database backups."""
        return f"{self.root}/backups"

    @property
    def logs(self) -> str:
        """Return the folder of the logs, the pipeline's and the application's."""
        return f"{self.root}/logs"

    @property
    def app_logs(self) -> str:
        """Return the folder of the application's own logs, which it writes to itself."""
        return f"{self.logs}/app"

    @property
    def public(self) -> str:
        """Return the folder of what the application may read about its deployments."""
        return f"{self.root}/public"

    @property
    def records(self) -> str:
        """Return the folder of the records, one file a run."""
        return f"{self.root}/records"

    @property
    def journal(self) -> str:
        """Return the folder of the journals, one file a run."""
        return f"{self.root}/journal"

    @property
    def releases(self) -> str:
        """Return the folder of the releases, one folder each."""
        return f"{self.root}/releases"

    @property
    def proxy(self) -> str:
        """Return the folder that the proxy sees as /etc/caddy."""
        return f"{self.root}/proxy"

    @property
    def caddyfile(self) -> str:
        """Return the proxy's configuration file."""
        return f"{self.proxy}/Caddyfile"

    @property
    def live(self) -> str:
        """Return the folder whose one file is named after the upstream."""
        return f"{self.proxy}/live"

    @property
    def library(self) -> str:
        """Return the folder of what runs detached, one folder a version."""
        return f"{self.root}/lib"

    @property
    def schedule(self) -> str:
        """Return the folder of the daily backup: a library of its own, and its plan."""
        return f"{self.root}/schedule"

    @property
    def triggers(self) -> str:
        """Return the folder of what starts deployments: its libraries, and its plan."""
        return f"{self.root}/triggers"

    @property
    def queue(self) -> str:
        """Return the folder of what webhooks want deployed, which is the listener's own."""
        return f"{self.triggers}/queue"

    @property
    def webhook_secret(self) -> str:
        """Return the file with what webhooks are proved by."""
        return f"{self.queue}/secret"

    @property
    def pushed(self) -> str:
        """Return the bare repository that people push to."""
        return f"{self.root}/push.git"

    @property
    def listening(self) -> str:
        """Return the folder with the listener's socket, where the proxy finds it too."""
        return f"{self.proxy}/listen"

    @property
    def working(self) -> str:
        """Return the lock that detached work holds."""
        return f"{self.root}/working"

    @property
    def repository(self) -> str:
        """Return the clone that the host fetches the code into."""
        return f"{self.root}/repo"

    @property
    def env_file(self) -> str:
        """Return the application's environment, secrets included."""
        return f"{self.root}/.env"

    @property
    def lock(self) -> str:
        """Return the lock that a run holds."""
        return f"{self.root}/lock"

    @property
    def folders(self) -> tuple[str, ...]:
        """Return every folder a run needs."""
        return (
            self.root,
            self.backups,
            self.logs,
            self.records,
            self.journal,
            self.releases,
            self.library,
            self.proxy,
            self.live,
        )

    @property
    def modes(self) -> dict[str, int]:
        """Return the folders of a host, each with the most that its mode may allow."""
        private = dict.fromkeys(self.folders, 0o700)
        # The proxy and the listener, who are others, look at what is theirs.
        return private | dict.fromkeys((self.root, self.public, self.proxy, self.live), 0o755)

    @property
    def keys(self) -> str:
        """Return the folder of what the host shows where it fetches the code."""
        return f"{self.root}/ssh"

    @property
    def deploy_key(self) -> str:
        """Return the private key that it shows."""
        return f"{self.keys}/deploy_key"

    @property
    def known_hosts(self) -> str:
        """Return the host keys that it expects."""
        return f"{self.keys}/known_hosts"

    @property
    def hook(self) -> str:
        """Return what git runs after a push to the host."""
        return f"{self.pushed}/hooks/post-receive"

    def release(self, identity: str) -> str:
        """Return the folder of a release."""
        return f"{self.releases}/{identity}"

    def bill(self, identity: str) -> str:
        """Return the file that lists what a release is made of."""
        return f"{self.release(identity)}/sbom.json"

    def place(self, identity: str, image: str) -> Place:
        """Return where a release lives, and what it is made of."""
        folder = self.release(identity)
        return Place(
            release=identity,
            source=f"{folder}/source",
            env_file=f"{folder}/env",
            compose_file=f"{folder}/compose.yml",
            image=image,
        )

    def log(self, at: datetime) -> str:
        """Return the log file of a run that started then."""
        return f"{self.logs}/deployment_{stamp(at)}.log"


def stamp(at: datetime) -> str:
    """Return a time as it stands in file names, UTC."""
    return at.strftime(STAMP)
