"""Publishes events to a Fanwire node over HTTP. Only the standard library, Python 3.8 and later.

    from fanwire_catalogs.runs import broadcast_stage_progress
    from fanwire_events import Publisher, Target

    publisher = Publisher("http://127.0.0.1:8080")
    data = {"runId": "run-42", "stageId": "load", "progress": 37.5}
    broadcast_stage_progress(publisher, Target(run="run-42"), data)
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any, List, Optional, Sequence


@dataclass(frozen=True)
class Target:
    """Whom an event is for. Of several, whoever is subscribed to any gets it, once; without any it is for all."""

    run: Optional[str] = None
    project: Optional[str] = None
    user: Optional[str] = None
    topics: Sequence[str] = ()

    def topics_of(self, category: str) -> List[str]:
        """The event's topics: its category, then those of the target."""
        found = [category]
        for kind, name in (("run", self.run), ("project", self.project), ("user", self.user)):
            if name is not None:
                found.append(f"{kind}:{name}")
        found.extend(self.topics)
        if len(found) == 1:
            found.append("global")
        return list(dict.fromkeys(found))


ALL = Target()
"""Everyone: whoever is subscribed to the event's category or to `global`."""


class PublishError(Exception):
    """The node did not accept an event. The text is the node's; for a schema violation it names the path."""

    def __init__(self, message: str, status: Optional[int] = None, code: Optional[int] = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status; `None` where no answer came."""
        self.code = code
        """The node's error code, where it gave one: 7 is a schema violation."""


class Publisher:
    """Publishes to one node, one request for each event. May be used by several threads."""

    def __init__(self, url: str, token: Optional[str] = None, timeout: float = 10.0) -> None:
        """`url`: where the node serves HTTP; `token`: its `publish_token`; `timeout`: in seconds, for each wait."""
        self._url = url.rstrip("/") + "/api/publish"
        self._token = token
        self._timeout = timeout

    def publish(self, target: Target, category: str, event: str, data: Any) -> None:
        """Returns when the node has accepted the event; raises `PublishError` where it did not."""
        entry = {"topics": target.topics_of(category), "event": event, "data": data}
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = "Bearer " + self._token
        # NaN and Infinity are Python's, not JSON's.
        body = json.dumps(entry, allow_nan=False).encode()
        request = urllib.request.Request(self._url, body, headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(error.code, error.read()) from None
        except (OSError, http.client.HTTPException) as error:
            raise PublishError(f"{self._url}: {error}") from error


def _refusal(status: int, body: bytes) -> PublishError:
    text = body.decode("utf-8", "replace").strip()
    try:
        answer = json.loads(text)
        if answer.get("errors"):
            first = answer["errors"][0]
            return PublishError(first["message"], status, first.get("code"))
        return PublishError(answer["error"], status)
    except (ValueError, KeyError, TypeError, AttributeError):
        # Not the node's JSON: a proxy's page, perhaps. The text itself has to do.
        return PublishError(text or f"the node answered {status}", status)
