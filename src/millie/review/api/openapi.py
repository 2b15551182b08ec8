"""The API's OpenAPI document, and its errors as RFC 9457 problems."""

from __future__ import annotations

from typing import Any

from ninja import NinjaAPI

from millie.review.problems import CONTENT_TYPE


class ProblemApi(NinjaAPI):
    """An API whose errors are ``application/problem+json``, and whose document says so."""

    def get_openapi_schema(self, **kwargs: Any) -> Any:
        """As ninja makes it, with the type that errors have."""
        document = super().get_openapi_schema(**kwargs)
        for path in document["paths"].values():
            for operation in path.values():
                for status, response in operation["responses"].items():
                    told = response.get("content", {})
                    if int(status) >= 400 and _is_problem(told):
                        response["content"] = {CONTENT_TYPE: told["application/json"]}
        return document


def _is_problem(told: dict[str, Any]) -> bool:
    reference = told.get("application/json", {}).get("schema", {}).get("$ref", "")
    return bool(reference.endswith("/Problem"))
