"""Who may do what: every operation of the document, asked by every kind of caller."""

import pytest
from tests.contract.operations import OPERATIONS, valid_request

from pricebook.core.principal import Scope

# What is asked for belongs to the asking viewer, editor, admin or key's owner; to a viewer who is
# not the caller for the rest. A new operation without a row here fails the test.
#
#   stranger    another viewer            admin2     an admin, asking for a viewer's things
#   key         an admin's API key, every scope
#   key:read    an admin's API key, reading scopes only
#   key:other   an admin's API key with the scopes of the other area: users for items and so on
#   revoked     an API key that was every scope's and is revoked
EXPECTED = """
                      anonymous viewer editor admin stranger admin2 key  key:read key:other revoked
get_item              401       200    200    200   200      200    200  200      403       401
list_items            401       200    200    200   200      200    200  200      403       401
suggest_items         401       200    200    200   200      200    200  200      403       401
get_item_name         401       200    200    200   200      200    200  200      403       401
get_item_by_sku       401       200    200    200   200      200    200  200      403       401
list_public_items     200       200    200    200   200      200    200  200      200       200
get_public_item       200       200    200    200   200      200    200  200      200       200
create_item           401       403    201    201   403      201    201  403      403       401
update_item           401       403    200    200   403      200    200  403      403       401
replace_item          401       403    200    200   403      200    200  403      403       401
delete_item           401       403    204    204   403      204    204  403      403       401
put_item_by_sku       401       403    200    200   403      200    200  403      403       401
change_many_items     401       403    200    200   403      200    200  403      403       401
log_in                200       200    200    200   200      200    200  200      200       200
log_out               401       204    204    204   204      204    403  403      403       401
request_password_reset 202      202    202    202   202      202    202  202      202       202
reset_password        204       204    204    204   204      204    204  204      204       204
verify_email          204       204    204    204   204      204    204  204      204       204
request_email_verification 401  202    202    202   202      202    403  403      403       401
list_sessions         401       200    200    200   200      200    403  403      403       401
close_other_sessions  401       204    204    204   204      204    403  403      403       401
read_session          401       200    200    200   404      404    403  403      403       401
close_session         401       204    204    204   404      404    403  403      403       401
list_api_keys         401       200    200    200   200      200    403  403      403       401
create_api_key        401       201    201    201   201      201    403  403      403       401
read_api_key          401       200    200    200   404      404    403  403      403       401
revoke_api_key        401       204    204    204   404      404    403  403      403       401
read_me               401       200    200    200   200      200    200  200      200       401
update_me             401       200    200    200   200      200    403  403      403       401
change_password       401       204    204    204   204      204    403  403      403       401
list_users            401       403    403    200   403      200    200  200      403       401
create_user           401       403    403    201   403      201    201  403      403       401
read_user             401       200    200    200   403      200    200  200      200       401
update_user           401       403    403    200   403      200    200  403      403       401
delete_user           401       403    403    204   403      204    204  403      403       401
read_public_user      200       200    200    200   200      200    200  200      200       200
list_webhooks         401       403    403    200   403      200    200  200      403       401
create_webhook        401       403    403    201   403      201    201  403      403       401
read_webhook          401       403    403    200   403      200    200  200      403       401
update_webhook        401       403    403    200   403      200    200  403      403       401
delete_webhook        401       403    403    204   403      204    204  403      403       401
send_webhook_test     401       403    403    202   403      202    202  403      403       401
rotate_webhook_secret 401       403    403    200   403      200    200  403      403       401
replay_webhook        401       403    403    202   403      202    202  403      403       401
list_webhook_deliveries 401     403    403    200   403      200    200  200      403       401
read_webhook_delivery 401       403    403    200   403      200    200  200      403       401
redeliver_webhook_delivery 401  403    403    202   403      202    202  403      403       401
list_events           401       200    200    200   200      200    200  200      403       401
stream_events         401       200    200    200   200      200    200  200      403       401
import_items          401       403    202    202   403      202    202  403      403       401
read_import_errors    401       404    200    200   404      200    200  200      403       401
export_items_csv      401       200    200    200   200      200    200  200      403       401
export_items_jsonl    401       200    200    200   200      200    200  200      403       401
export_users_csv      401       403    403    200   403      200    200  200      403       401
export_users_jsonl    401       403    403    200   403      200    200  200      403       401
create_export         401       202    202    202   202      202    202  202      403       401
read_export_file      401       200    200    200   404      200    200  200      403       401
read_export_link      401       200    200    200   404      404    200  200      403       401
list_jobs             401       200    200    200   200      200    200  200      403       401
read_job              401       200    200    200   404      200    200  200      403       401
cancel_job            401       200    200    200   404      200    200  200      403       401
retry_job             401       202    202    202   404      202    202  202      403       401
stream_job            401       200    200    200   404      200    200  200      403       401
read_job_log          401       200    200    200   404      200    200  200      403       401
read_inbox            401       200    200    200   200      200    403  403      403       401
mark_notification     401       200    200    200   404      404    403  403      403       401
mark_all_notifications_read 401 204    204    204   204      204    403  403      403       401
read_preferences      401       200    200    200   200      200    403  403      403       401
update_preferences    401       200    200    200   200      200    403  403      403       401
ask_to_unsubscribe    200       200    200    200   200      200    200  200      200       200
unsubscribe           200       200    200    200   200      200    200  200      200       200
list_watches          401       200    200    200   200      200    403  403      403       401
watch_item            401       204    204    204   204      204    403  403      403       401
unwatch_item          401       204    204    204   204      204    403  403      403       401
watch_tag             401       204    204    204   204      204    403  403      403       401
unwatch_tag           401       204    204    204   204      204    403  403      403       401
ping                  200       200    200    200   200      200    200  200      200       200
read_liveness         200       200    200    200   200      200    200  200      200       200
read_metrics          200       200    200    200   200      200    200  200      200       200
read_readiness        200       200    200    200   200      200    200  200      200       200
read_health           200       200    200    200   200      200    200  200      200       200
"""

_HEAD, *_ROWS = (line.split() for line in EXPECTED.strip().splitlines())
ACCESS = {name: dict(zip(_HEAD, map(int, row), strict=True)) for name, *row in _ROWS}

ITEM_SCOPES = (Scope.ITEMS_READ, Scope.ITEMS_WRITE)
USER_SCOPES = (Scope.USERS_READ, Scope.USERS_WRITE)
READING_SCOPES = (Scope.ITEMS_READ, Scope.USERS_READ, Scope.WEBHOOKS_READ)


def test_every_operation_says_who_may_use_it():
    assert sorted(ACCESS) == sorted(OPERATIONS)


@pytest.fixture
def caller(api, make_user, make_key):
    """Return for a kind of caller its client, and the owner of what it asks for."""

    async def with_key(operation, kind):
        holder = await make_user("admin")
        is_of_items = "/users" not in operation.path and operation.path.startswith(
            ("/v1/items", "/v1/events", "/v1/exports", "/v1/imports", "/v1/jobs")
        )
        others = USER_SCOPES if is_of_items else ITEM_SCOPES
        scopes = {"key:read": READING_SCOPES, "key:other": others}.get(kind, tuple(Scope))
        client = api.with_token(await make_key(holder, *scopes))
        if kind == "revoked":
            (key,) = (await api.as_(holder).get("/v1/api-keys")).json()["items"]
            await api.as_(holder).delete(f"/v1/api-keys/{key['id']}")
        return client, holder

    async def make(operation, kind):
        if kind == "anonymous":
            return api, await make_user("viewer")
        if kind in {"viewer", "editor", "admin"}:
            user = await make_user(kind)
            return api.as_(user), user
        if kind in {"stranger", "admin2"}:
            asking = await make_user("viewer" if kind == "stranger" else "admin")
            return api.as_(asking), await make_user("viewer")
        return await with_key(operation, kind)

    return make


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_no_one_gets_in_where_they_do_not_belong(
    operation, caller, make_user, make_things, recorded
):
    await make_user("admin")  # the last one may not be deleted
    found = {}
    for kind in _HEAD:
        client, owner = await caller(operation, kind)
        request = valid_request(operation, await make_things(owner))
        before = len(await recorded())
        reply = await client.request(**request)
        found[kind] = reply.status_code
        if reply.is_error:
            assert len(await recorded()) == before, f"{kind} was refused, and yet changed something"
    assert found == ACCESS[operation.id]
