"""Administration: what an administrator does, by pointer and by keyboard."""

import json
import pathlib
import time

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from driving import (FIGURES, HANDS, Pointer, accessible, at, browser, call, click, click_named, clicks, file,
                     focused, follow, gone, make, page, password, pressed, put, row, seen, sign_in, text, through, toast, undo, until,
                     value_of, without, words_of, write)
from pages import unfinished


def by_either(flow):
    """Runs a flow by pointer and by keyboard, in a wide window and in narrow ones."""
    def each(driver):
        for hand in HANDS:
            at(driver, hand.width)
            flow(driver, hand)
        at(driver, HANDS[0].width)
    each.__name__ = flow.__name__
    return each


def labelled(words):
    return f"[aria-label='{words}']"


def enter(driver):
    sign_in(driver, "root")


@by_either
def accounts(driver, hand):
    """A user is created, added to a group, given a role, renamed, banned, unbanned and deleted. Destructive
    actions ask for confirmation, state their consequences, and can be undone where the API allows it."""
    login = "made-by-" + hand.name
    driver.get(page + "/users")
    hand.press(driver, "#new")
    write(driver, "#user-login", login)
    hand.choose(driver, "#user-kind", "A person, who signs in")
    hand.press(driver, "#new-user button.primary")
    toast(driver, f"User {login} created.")
    assert driver.current_url == f"{page}/users/{login}"
    driver.get(page + "/users")
    write(driver, "#find", login[:-2])
    until(driver, lambda d: len(d.find_elements(By.CSS_SELECTOR, "#users tbody tr")) == 1)
    hand.press(driver, "#users tbody a")
    hand.press(driver, "#add-group summary")
    hand.choose(driver, "#group", "developers")
    hand.press(driver, "#add-group button")
    toast(driver, f"{login} added to developers.")
    undo(driver, hand)
    without(driver, "tracker", ".facts")
    hand.press(driver, "#add-role summary")
    hand.choose(driver, "#role", "Observer")
    hand.press(driver, "#add-role button")
    toast(driver, f"observer granted to {login}.")
    hand.press(driver, labelled("Withdraw observer"))
    hand.press(driver, "#confirm [value=yes]")
    toast(driver, f"observer withdrawn from {login}.")
    hand.press(driver, "[data-opens=edit]")
    put(driver, "#edit-name", "Somebody")
    hand.press(driver, "#edit button.primary")
    toast(driver, f"{login} saved.")
    text(driver, "Somebody", "h1")
    undo(driver, hand)
    text(driver, login, "h1")
    hand.press(driver, "[data-opens=ban]")
    text(driver, "0 working tokens", "#ban")
    assert focused(driver).get_attribute("id") == "ban-reason"
    accessible(driver, "ban")
    focused(driver).send_keys(Keys.ESCAPE)
    gone(driver, "#ban")
    assert focused(driver).get_attribute("data-opens") == "ban"
    hand.press(driver, "[data-opens=ban]")
    write(driver, "#ban-reason", "left")
    hand.press(driver, "#ban button.danger")
    toast(driver, f"{login} was banned.")
    text(driver, "Banned because")
    undo(driver, hand)
    without(driver, "Banned because")
    hand.press(driver, "[data-opens=ban]")
    hand.press(driver, "#ban button.danger")
    hand.press(driver, "[data-call$='/unban'] button:not(.danger)")
    toast(driver, f"The ban of {login} was lifted.")
    hand.press(driver, "[data-opens=delete]")
    hand.press(driver, "#delete button.danger")
    toast(driver, f"{login} was deleted.")
    assert driver.current_url == page + "/users"


def nothing_to_add(driver):
    """A user who is in every group and has every role is offered no more."""
    driver.get(page + "/users/nobody")
    groups, roles = ([one.get_attribute("value") for one in driver.find_elements(By.CSS_SELECTOR, f"#add-{kind} option")] for kind in ("group", "role"))
    assert "developers" in groups and "observer" in roles, (groups, roles)
    for change in ("PUT", "POST"), ("DELETE", "DELETE"):
        for group in groups:
            call(driver, change[0], f"/v1/groups/{group}/members/nobody")
        for role in roles:
            call(driver, change[1], "/v1/grants", {"role": role, "user": "nobody"})
        driver.get(page + "/users/nobody")
        assert len(driver.find_elements(By.CSS_SELECTOR, "#add-group, #add-role")) == (0 if change[0] == "PUT" else 2)


def two_at_once(driver):
    """Somebody else has saved first: the differences are shown, and no input is lost."""
    driver.get(page + "/users/nobody")
    click(driver, "[data-opens=edit]")
    call(driver, "PATCH", "/v1/users/nobody", {"name": "Changed elsewhere"})
    write(driver, "#edit-email", "nobody@example.org", Keys.ENTER)
    text(driver, "is now “Changed elsewhere”", "#edit")
    click_named(driver, "#edit .actions button", "Save mine over it")
    toast(driver, "nobody saved.")
    call(driver, "POST", "/v1/roles", {"key": "reviewer", "name": "Reviewer", "permissions": ["read-audit"]})
    driver.get(page + "/roles")
    click(driver, "[data-opens=edit-role][data-key=reviewer]")
    call(driver, "PATCH", "/v1/roles/reviewer", {"permissions": ["read-audit", "read-group"]})
    click(driver, "#edit-role [value=read-audit]")
    write(driver, "#edit-name", Keys.ENTER)
    text(driver, "read-group: added", "#edit-role")
    click_named(driver, "#edit-role .actions button", "Reload")
    until(driver, lambda d: "read-group" in row(d, "Reviewer"))


@by_either
def groups(driver, hand):
    """A group is created below another one, filled, emptied, moved to the top, and deleted."""
    name = "group of " + hand.name
    driver.get(page + "/groups")
    hand.press(driver, "#new")
    write(driver, "#group-name", name)
    hand.choose(driver, "#group-parent", "developers")
    hand.press(driver, "#new-group button.primary")
    toast(driver, f"Group {name} created.")
    hand.press(driver, f".tree ul a[href$='{hand.name}']")
    hand.press(driver, "#add-member summary")
    write(driver, "#member", "nobody")
    hand.press(driver, "#add-member button")
    toast(driver, f"nobody added to {name}.")
    hand.press(driver, labelled("Remove nobody"))
    toast(driver, f"nobody removed from {name}.")
    hand.press(driver, "[data-opens=edit]")
    hand.choose(driver, "#edit-parent", "No group")
    hand.press(driver, "#edit button.primary")
    toast(driver, f"Group {name} saved.")
    gone(driver, f".tree ul a[href$='{hand.name}']")
    hand.press(driver, f".tree a[href$='{hand.name}']")
    hand.press(driver, "[data-opens=delete]")
    hand.press(driver, "#delete button.danger")
    toast(driver, f"Group {name} was deleted.")


@by_either
def roles(driver, hand):
    """A role is created, changed, restored by Undo, and deleted."""
    key = "role-of-" + hand.name
    driver.get(page + "/roles")
    hand.press(driver, "#new")
    write(driver, "#role-key", key, Keys.TAB, "Auditor")
    hand.press(driver, "#new-role [value=read-audit]")
    hand.press(driver, "#new-role button.primary")
    toast(driver, f"Role {key} created.")
    call(driver, "POST", "/v1/grants", {"role": key, "user": "nobody"})
    driver.get(page + "/roles")
    edit = f"[data-opens=edit-role][data-key={key}]"
    hand.press(driver, edit)
    text(driver, "granted to 1 user", "#edit-role")
    assert seen(driver, "#edit-role [value=read-audit]").is_selected()
    assert focused(driver).get_attribute("id") == "edit-name"
    accessible(driver, "edit-role")
    write(driver, "#edit-name", Keys.END, " of logs")
    hand.press(driver, "#edit-role [value=read-user]")
    hand.press(driver, "#edit-role button.primary")
    toast(driver, f"Role {key} saved.")
    until(driver, lambda d: "read-user" in row(d, "Auditor of logs"))
    undo(driver, hand)
    until(driver, lambda d: "read-user" not in row(d, "Auditor"))
    hand.press(driver, f"[data-opens=delete][data-key={key}]")
    text(driver, "granted to 1 user", "#delete")
    hand.press(driver, "#delete button.danger")
    toast(driver, "Role deleted.")


@by_either
def revoking(driver, hand):
    """One token of another user is revoked, then several at once."""
    for name in ("first", "second", "third"):
        call(driver, "POST", "/v1/users/alice/tokens", {"name": f"{name} for {hand.name}", "scope": [{"service": "tracker"}]})
    driver.get(f"{page}/tokens?q=for+{hand.name}&sort=name")
    hand.press(driver, "#tokens [data-opens=revoke]")
    text(driver, f"Revoke first for {hand.name}?", "#revoke")
    hand.press(driver, "#revoke button.danger")
    toast(driver, "Token revoked.")
    gone(driver, labelled(f"Select first for {hand.name}"))
    hand.press(driver, "[data-pick]")
    text(driver, "1 selected", "#bulk")
    accessible(driver, "bulk")
    hand.press(driver, "[data-pick]:not(:checked)")
    hand.press(driver, "[data-revoke-picked]")
    text(driver, f"second for {hand.name}, third for {hand.name}", "#confirm")
    hand.press(driver, "#confirm [value=yes]")
    toast(driver, "2 tokens revoked.")
    assert "q=for" in driver.current_url
    text(driver, "No token matches")


@by_either
def log(driver, hand):
    """Events are filtered by kind, actor, target and date and shown as sentences; the chain is verified."""
    call(driver, "POST", "/v1/users/nobody/ban", {"reason": f"seen by {hand.name}"})
    call(driver, "POST", "/v1/users/nobody/unban")
    driver.get(page + "/audit")
    hand.choose(driver, "#by-event", "Users")
    today = time.gmtime()
    put(driver, "#by-actor", "root")
    put(driver, "#by-target", "nobody")
    put(driver, "#by-from", time.strftime("%m%d%Y", today))
    asked = ["event=user.", "actor=root", "target=nobody", time.strftime("from=%Y-%m-%d", today)]
    until(driver, lambda d: all(one in d.current_url for one in asked))
    until(driver, lambda d: all("nobody" in one.text for one in d.find_elements(By.CSS_SELECTOR, "#events > li > p")))
    text(driver, f"root banned nobody: seen by {hand.name}", "#events")
    hand.press(driver, "#events details summary")
    text(driver, "Actor", "#events")
    hand.press(driver, "#verify button")
    text(driver, "The chain is complete", "#verified")


@by_either
def explaining(driver, hand):
    """Shows the failed step, the deciding line, and a remedy: a button that asks first and can be undone."""
    driver.get(page + "/explain")
    write(driver, "#url", "/api/issues")
    write(driver, "#user", "nobody")
    hand.choose(driver, "#method", "GET")
    hand.press(driver, "form.card button.primary")
    told = words_of(driver, "section[aria-label=Decision]")
    assert "403" in told and "The deciding line" in told and "read service" in told, told
    hand.press(driver, ".remedies button")
    hand.press(driver, "#confirm [value=yes]")
    text(driver, "Permitted.")
    undo(driver, hand)
    text(driver, "Refused with 403")


@by_either
def reloading(driver, hand):
    """A newer file is shown with the changes that it would make, and is loaded."""
    with pathlib.Path(file).open("a") as configuration:
        configuration.write(f"# Written before {hand.name}.\n")
    driver.get(page + "/configuration")
    text(driver, "The file on disk is newer")
    assert words_of(driver, ".diff .plus").endswith(f"# Written before {hand.name}.")
    accessible(driver, "reload")
    hand.press(driver, "[data-call='POST /v1/reload'] button")
    hand.press(driver, "#confirm [value=yes]")
    toast(driver, "Configuration reloaded.")
    text(driver, "The file on disk is the configuration in force.")
    write(driver, "#text", "version = 2")
    hand.press(driver, "#check button")
    text(driver, "gateway.toml:1", "#checked")


@by_either
def cutting(driver, hand):
    """A request in flight appears without a reload of the page, and is cut."""
    made = call(driver, "POST", "/v1/users/alice/tokens", {"name": f"live {hand.name}", "scope": [{"service": "tracker"}]})
    driver.get(page + "/live")
    with unfinished(made["token"]) as connection:
        text(driver, made["id"], "#live")
        hand.press(driver, f"tr:has([href='/tokens/{made['id']}']) button")
        hand.press(driver, "#confirm [value=yes]")
        toast(driver, "The request was cut.")
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            pass


def explained(driver):
    """Any refusal is explained in three clicks: from the overview, and from a line of the access log."""
    made = call(driver, "POST", "/v1/users/alice/tokens", {"name": "explained", "scope": [{"service": "tracker"}]})
    call(driver, "DELETE", f"/v1/tokens/{made['id']}")
    assert through(made["token"]) == 401
    # Refusals are written to the log in batches.
    until(driver, lambda d: driver.get(page + "/audit?event=refusal") or "with explained" in d.find_element(By.TAG_NAME, "main").text)
    driver.get(page + "/overview")
    clicks(driver)
    follow(driver, "revoked token")
    text(driver, "with explained", "#events")
    click(driver, "#events a.chip")
    text(driver, "Refused with 401")
    assert pressed(driver) <= 3, pressed(driver)
    line = {"time": "2026-11-28T12:00:00.000Z", "outcome": "denied", "reason": "read_service_denied", "status": 403,
            "method": "GET", "path": "/hub/api/x", "token_id": None, "user": "nobody", "client": "127.0.0.1"}
    driver.get(page + "/overview")
    clicks(driver)
    follow(driver, "Explain")
    write(driver, "#url", json.dumps(line), Keys.ENTER)
    text(driver, "The log says: the account may not read the service")
    text(driver, "Refused with 403", "section[aria-label=Decision]")
    assert pressed(driver) <= 3, pressed(driver)
    assert value_of(driver, "#url") == "/hub/api/x"
    accessible(driver, "explain-log")


def paging(driver):
    driver.get(page + "/tokens?user=collector")
    click(driver, "#page-next")
    text(driver, "51–100 of 2000")
    driver.get(page + "/tokens")
    text(driver, "1–50 of")
    # The exact time is in the tooltip.
    ActionChains(driver).move_to_element(seen(driver, "#tokens time")).perform()
    until(driver, lambda d: time.strftime("%Y") in d.find_element(By.CSS_SELECTOR, "#tokens time").get_attribute("title"))


@by_either
def invited(driver, hand):
    """From the invitation link to the first permitted request, without an administrator's help in between."""
    login = "newcomer-" + hand.name
    call(driver, "POST", "/v1/users", {"login": login})
    call(driver, "POST", "/v1/grants", {"role": "contributor", "user": login})
    call(driver, "PUT", "/v1/groups/developers/members/" + login)
    driver.get(page + "/users/" + login)
    hand.press(driver, "[data-opens=invite]")
    hand.press(driver, "#invitation-link button")
    link = value_of(driver, "#invited-link")
    other = browser(width=hand.width)
    try:
        began = time.monotonic()
        other.get(page + "/invitation#" + link.split("#")[1])
        text(other, f"Welcome, {login}", "#greeting")
        accessible(other, "invitation")
        assert value_of(other, "#login") == login
        clicks(other)
        write(other, "#password", password + Keys.ENTER)
        until(other, lambda d: d.current_url.endswith("/profile/authentication"))
        token = make(other, "first", hand)
        assert through(token) == 200
        text(other, "First request seen", "#made-waiting")
        took = time.monotonic() - began
        assert took <= 90, took
        if isinstance(hand, Pointer):
            FIGURES[f"newcomer in a window of {hand.width}"] = f"{pressed(other)} clicks, {took:.0f} s to the first 200, axe-core included"
            assert pressed(other) <= 5, pressed(other)
        other.get(page + "/invitation#" + link.split("#")[1])
        text(other, "invalid or has expired")
    finally:
        other.quit()


PARTS = [enter, accounts, nothing_to_add, two_at_once, groups, roles, revoking, log, explaining, reloading, cutting, explained, paging, invited]
