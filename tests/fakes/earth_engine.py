"""A local stand-in for the Earth Engine service: its REST API on 127.0.0.1, for the real client.

    with FakeEarthEngine() as fake:
        fake.add_image("COPERNICUS/S2/a", {"B4": array}, "EPSG:32619", transform, start="2021-06-10T15:10:00Z")
        ... a recipe with url: fake.url ...

The description of the API and the list of its functions are those that the client's own tests use, out of the installed
package: so every method of ee.Image is there. What of them can be computed is in ``earth_engine_language``. This shows
that wetmap asks for what it means; it does not show that the real service answers as this does.
"""

from __future__ import annotations

import datetime as dt
import http.server
import importlib.resources
import io
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import shapely
from affine import Affine
from pyproj import Transformer
from shapely.geometry import mapping, shape

from tests.fakes import earth_engine_language as language
from tests.fakes.earth_engine_language import ExpressionError, Img, PixelGrid

#: What the service allows for one answer, bytes.
MOST_BYTES = 50_331_648
Json = dict[str, Any]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Image.constant": language.constant,
    "Image.select": language.select,
    "Image.rename": language.rename,
    "Image.addBands": language.add_bands,
    "Image.resample": language.resample,
    "Image.updateMask": language.update_mask,
    "Image.unmask": language.unmask,
    "Image.mask": language.mask_of,
    "Image.remap": language.remap,
    "Image.where": language.where,
    "Image.reduce": language.reduce_bands,
    "Image.reduceNeighborhood": language.reduce_neighborhood,
    "Image.focalMax": language.focal(lambda stack: np.nanmax(stack, axis=0)),
    "Image.focalMin": language.focal(lambda stack: np.nanmin(stack, axis=0)),
    "Image.toFloat": language.cast("float32"),
    "Image.toDouble": language.cast("float64"),
    "Image.add": language.binary(np.add),
    "Image.subtract": language.binary(np.subtract),
    "Image.multiply": language.binary(np.multiply),
    "Image.divide": language.binary(np.divide),
    "Image.max": language.binary(np.maximum),
    "Image.gt": language.binary(np.greater),
    "Image.gte": language.binary(np.greater_equal),
    "Image.lt": language.binary(np.less),
    "Image.eq": language.binary(np.equal),
    "Image.and": language.binary(np.logical_and),
    "Image.or": language.binary(np.logical_or),
    "Image.not": language.unary(np.logical_not),
    "Image.sqrt": language.unary(np.sqrt),
    "Image.log10": language.unary(np.log10),
    "ImageCollection.fromImages": lambda images: images,
    "ImageCollection.mosaic": language.mosaic,
    "ImageCollection.reduce": language.reduce_collection,
    "Kernel.square": lambda radius, units: language.offsets(radius, "square") if units == "pixels" else None,
    "Reducer.mean": language.plain("mean", np.nanmean),
    "Reducer.sum": language.plain("sum", np.nansum),
    "Reducer.min": language.plain("min", np.nanmin),
    "Reducer.variance": language.plain("variance", np.nanvar),
    "Reducer.count": language.count,
    "Reducer.median": language.median,
    "Reducer.percentile": language.percentile,
}


class Evaluation:
    """One expression as the client sends it: a table of values that refer to each other."""

    def __init__(self, fake: FakeEarthEngine, expression: Json) -> None:
        self.fake, self.values, self.done = fake, expression["values"], {}
        self.result = self.of(expression["result"])

    def of(self, name: str) -> Any:
        if name not in self.done:
            self.done[name] = self.value(self.values[name])
        return self.done[name]

    def value(self, node: Json) -> Any:
        ((kind, body),) = node.items()
        if kind == "constantValue":
            return body
        if kind == "integerValue":
            return int(body)
        if kind == "valueReference":
            return self.of(body)
        if kind == "arrayValue":
            return [self.value(one) for one in body["values"]]
        if kind == "functionInvocationValue":
            words = {_snake(name): self.value(one) for name, one in body["arguments"].items()}
            return self.call(body.get("functionName"), words)
        raise ExpressionError(f"the fake has no {kind}")

    def call(self, name: str, words: Json) -> Any:
        self.fake.used.add(name)
        if name == "Image.load":
            return self.fake.image(words["id"])
        if name not in FUNCTIONS:
            raise ExpressionError(f"the fake has no function {name}")
        return FUNCTIONS[name](**words)


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


class FakeEarthEngine:
    """The service.

    ``log`` holds what was asked (method, path, body), ``fail`` answers to give first: a status, or a status and a text.
    ``stall_s`` holds seconds to wait before answers, ``garble`` is how many answers are cut off, and ``too_much`` the
    number of pixels of an answer beyond which the service "runs out of memory".
    """

    def __init__(self, project: str = "wetmap-test") -> None:
        self.project = project
        self.clear()
        files = importlib.resources.files("ee") / "tests"
        self.algorithms = (files / "algorithms.json").read_bytes()
        text = (files / "cloud_api_discovery_document.json").read_text().replace("v1alpha", "v1")
        self.description: Json = json.loads(text)
        listing = self.description["resources"]["projects"]["resources"]["assets"]["methods"]["listAssets"]
        # The client sends a filter, which this old description lacks and the service's has.
        listing["parameters"]["filter"] = {"location": "query", "type": "string"}

    def clear(self) -> None:
        """Forget all images, and what was asked."""
        self.images: dict[str, Img] = {}
        self.rows: dict[str, list[Json]] = {}
        self.log: list[tuple[str, str, Json | None]] = []
        self.headers: list[Mapping[str, str]] = []
        self.fail: list[int | tuple[int, str]] = []
        self.garble = 0
        self.stall_s: list[float] = []
        self.too_much: int | None = None
        self.used: set[str] = set()
        self.tokens: list[str] = []

    def add_image(
        self,
        asset: str,
        bands: Mapping[str, np.ndarray],
        crs: str,
        transform: Affine,
        *,
        start: str | None = None,
        nodata: float | None = None,
        properties: Json | None = None,
        transforms: Mapping[str, Affine] | None = None,
    ) -> None:
        """An image of rasters; a band's own transform where it differs (20 m bands beside 10 m ones)."""
        at = {name: (transforms or {}).get(name, transform) for name in bands}
        kinds = [
            {name: language.stored(a, crs, at[name], nodata, bilinear=smooth) for name, a in bands.items()}
            for smooth in (False, True)
        ]
        self.images[asset] = Img(kinds[0], asset, Img(kinds[1], asset))
        first = next(iter(bands.values()))
        left, top = transform.c, transform.f
        edge = shapely.box(left, top + transform.e * first.shape[0], left + transform.a * first.shape[1], top)
        to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        outline = shapely.transform(edge, lambda xy: np.column_stack(to_degrees.transform(xy[:, 0], xy[:, 1])))
        row: Json = {
            "type": "IMAGE",
            "name": f"projects/earthengine-public/assets/{asset}",
            "id": asset,
            "geometry": mapping(outline),
            "properties": {"system:index": asset.rpartition("/")[2], **(properties or {})},
        }
        if start is not None:
            row |= {"startTime": start, "endTime": start}
        self.rows.setdefault(asset.rpartition("/")[0], []).append(row)

    def image(self, asset: str) -> Img:
        if asset not in self.images:
            raise ExpressionError(f"Image.load: Image asset '{asset}' not found.")
        return self.images[asset]

    def asked(self, end: str) -> list[Json]:
        """Bodies of the requests whose path ends so."""
        return [body or {} for _, path, body in self.log if path.endswith(end)]

    def answer(self, path: str, query: Mapping[str, str], body: Json | None) -> Json | bytes:
        if path == "/$discovery/rest":
            return self.description
        if path == f"/v1/projects/{self.project}/algorithms":
            return self.algorithms
        if path == f"/v1/projects/{self.project}/image:computePixels" and body is not None:
            return self.pixels(body)
        listed = re.fullmatch(r"/v1/projects/earthengine-public/assets/(.*):listAssets", path)
        if listed:
            return self.page(listed[1], query)
        raise LookupError(f"the fake has no answer for {path}")

    def pixels(self, body: Json) -> bytes:
        grid = PixelGrid.of(body["grid"])
        result = language.image(Evaluation(self, body["expression"]).result)
        if body["fileFormat"] != "NPY":
            raise ExpressionError(f"the fake gives NPY, not {body['fileFormat']}")
        if self.too_much is not None and grid.width * grid.height > self.too_much:
            raise ExpressionError("User memory limit exceeded.")
        bands = {name: band(grid) for name, band in result.bands.items()}
        values = np.zeros(grid.shape, dtype=[(name, band.dtype) for name, band in bands.items()])
        if values.nbytes > MOST_BYTES:
            raise ExpressionError(f"Total request size ({values.nbytes} bytes) must be less than {MOST_BYTES} bytes.")
        for name, band in bands.items():
            values[name] = band.filled(0)  # what the service puts there is not known: wetmap must not look
        file = io.BytesIO()
        np.save(file, values)
        if self.garble:
            self.garble -= 1
            return file.getvalue()[: file.tell() // 2]
        return file.getvalue()

    def page(self, collection: str, query: Mapping[str, str]) -> Json:
        """Images of a collection that meet the filter, a few at a time."""
        wanted = query.get("filter", "")
        start = re.search(r'startTime >= "([^"]*)"', wanted)
        end = re.search(r'endTime < "([^"]*)"', wanted)
        region = re.search(r'intersects\("(.*?)"\)', wanted)

        def meets(row: Json) -> bool:
            if start and _moment(row["startTime"]) < _moment(start[1]):
                return False
            if end and _moment(row["endTime"]) >= _moment(end[1]):
                return False
            place = json.loads(region[1].replace("'", '"')) if region else None
            return place is None or shape(row["geometry"]).intersects(shape(place))

        rows = [row for row in self.rows.get(collection, []) if meets(row)]
        first = int(query.get("pageToken", 0))
        page: Json = {"assets": rows[first : first + 2]}
        return {**page, "nextPageToken": str(first + 2)} if first + 2 < len(rows) else page

    def __enter__(self) -> FakeEarthEngine:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": self}))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        for name in ("rootUrl", "baseUrl", "mtlsRootUrl"):
            self.description[name] = f"{self.url}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    fake: FakeEarthEngine

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        link = urllib.parse.urlsplit(self.path)
        path, query = urllib.parse.unquote(link.path), dict(urllib.parse.parse_qsl(link.query))
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if path == "/token":  # where a service account gets its token
            self.fake.tokens.append(raw.decode())
            self.send(200, {"access_token": "secret-token", "expires_in": 3600, "token_type": "Bearer"})
            return
        body = json.loads(raw) if raw else None
        if self.fake.stall_s:
            time.sleep(self.fake.stall_s.pop(0))
        self.fake.log.append((self.command, path, body))
        self.fake.headers.append(dict(self.headers))
        if self.fake.fail and not path.startswith("/$"):
            told = self.fake.fail.pop(0)
            status, text = told if isinstance(told, tuple) else (told, f"told to answer {told}")
            self.send(status, {"error": {"code": status, "message": text, "status": "TOLD"}})
            return
        try:
            self.send(200, self.fake.answer(path, query, body))
        except LookupError as error:
            self.send(404, {"error": {"code": 404, "message": str(error), "status": "NOT_FOUND"}})
        except ExpressionError as error:
            self.send(400, {"error": {"code": 400, "message": str(error), "status": "INVALID_ARGUMENT"}})
        except Exception as error:  # noqa: BLE001  # a fault of the fake: said at once, the client would wait and ask again
            self.send(400, {"error": {"code": 400, "message": f"fault of the fake: {error!r}", "status": "FAULT"}})

    do_POST = do_GET  # noqa: N815  # the name that http.server looks for

    def send(self, status: int, answer: Json | bytes) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if data[:1] == b"{" else "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
