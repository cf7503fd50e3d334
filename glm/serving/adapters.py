"""Tasks that are added to a running server, and taken out of it: `POST /adapters`, `DELETE /adapters/{name}`."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from glm.errors import InputError, shown
from glm.options.predict import PredictOptions
from glm.prediction.setup import add_tasks, remove_task
from glm.prediction.writer import Writer
from glm.serving.schemas import AdapterRequest
from glm.serving.service import Service

Json = dict[str, Any]
PAUSE = 0.05  # seconds between two looks at whether a task's last text is written


class AdapterDesk:
    """Adds tasks to a service and takes them out, one after the other, while it answers.

    Args:
        options: of the server.
    """

    def __init__(self, service: Service, options: PredictOptions):
        self.service = service
        self.options = options
        self._turn = asyncio.Lock()
        self._working: set[asyncio.Task] = set()

    async def _to_its_end(self, work: Coroutine[Any, Any, Json]) -> Json:
        """The result of some work, which goes on when its client leaves: half a change is none."""
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        return await asyncio.shield(task)

    async def add(self, request: AdapterRequest) -> Json:
        """Loads adapters of a folder of the server's; the model stays as it is.

        Returns:
            The models and tasks that there are then.

        Raises:
            InputError: they cannot be used, are of another model, or their task is there already.
            QueueFullError, DecodingError: as `Batcher.run`.
        """
        return await self._to_its_end(self._add(request))

    async def _add(self, request: AdapterRequest) -> Json:
        service = self.service
        value = request.folder if request.name is None else f"{request.name}={request.folder}"
        async with self._turn:
            writer = service.writer
            tasks, put = await asyncio.to_thread(add_tasks, self.options, value, writer.model, writer.encoder)
            for name in tasks.adapters.names:
                if name in service.of_tasks or name == service.name:
                    raise InputError(f"name {shown(name)}: is served already; DELETE it first, or choose another name")
            writers: dict[str, Writer] = await service.batcher.run(put, count=0)
            for name, own in writers.items():
                columns = replace(tasks.data[name].columns, target_column=None)
                service.batcher.gone.discard(own.encoder.task)
                service.of_tasks[name] = Service(name, own, service.batcher, columns, service.command)
        return service.models()

    async def remove(self, name: str) -> Json:
        """Takes a task out, once its last text is written; from now on it is not there.

        Returns:
            The models and tasks that are left.

        Raises:
            InputError: there is no such task.
            QueueFullError, DecodingError: as `Batcher.run`.
        """
        return await self._to_its_end(self._remove(name))

    async def _remove(self, name: str) -> Json:
        service = self.service
        async with self._turn:
            found = service.of_tasks.pop(name, None)
            if found is None:
                raise InputError(f"name {shown(name)}: is not served; there are {service.names_of_tasks}")
            service.batcher.gone.add(found.writer.encoder.task)
            while not await service.batcher.run(self._removal(found), count=0):
                await asyncio.sleep(PAUSE)
            found.desk.close()
        return service.models()

    def _removal(self, found: Service) -> Callable[[], bool]:
        """Removes a task from the model unless texts of it are being written; runs in the decoding thread."""
        batcher, model, number = found.batcher, found.writer.model, found.writer.encoder.task

        def remove() -> bool:
            if batcher.is_writing(number):
                return False
            remove_task(model, found.name)
            return True

        return remove
