"""Trying several versions of an app's language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from paasd.api.operations import Body, Call, Operation
from paasd.api.v1.build_settings import pushed
from paasd.build.matrix import Matrix
from paasd.config_vars import ConfigVars
from paasd.identity.policy import Action
from paasd.source.repositories import Repositories


class NewMatrix(Body):
    versions: list[str]
    language: str = ""


class MatrixResource:
    def __init__(self, matrix: Matrix, config_vars: ConfigVars, repositories: Repositories) -> None:
        self._matrix = matrix
        self._config_vars = config_vars
        self._repositories = repositories

    def operations(self) -> Sequence[Operation]:
        path, summary = "/apps/{app}/matrix", "Build and test the pushed code with several versions"
        return [Operation("POST", path, Action.APP_DEPLOY, self.run, summary, NewMatrix, streams=True)]

    async def run(self, call: Call) -> dict[str, Any]:
        body: NewMatrix = call.body
        checkout = await pushed(self._repositories, call.app)
        config = await self._config_vars.get(call.app)
        trials = await self._matrix.run(call.app, checkout, body.language, body.versions, config, call.progress)
        return {"items": [asdict(trial) for trial in trials]}
