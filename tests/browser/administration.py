"""Administration: roles, refusals explained, many tokens, and all of it by the keyboard."""

import json
import time

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from driving import (FIGURES, accessible, browser, call, click, clicks, focused, follow, gone, look, make, page, password,
                     pressed, seen, steady, text, through, toast, until, watch)


def row(driver, words):
    """A row of the table that the page shows."""
    return until(driver, lambda d: next((r for r in d.find_elements(By.CSS_SELECTOR, "tbody tr") if words in r.text), None))


def roles(driver):
    """A role is made, changed, changed back by Undo, and changed by two at once."""
    driver.get(page + "/roles")
    click(driver, "#new")
    seen(driver, "#role-key").send_keys("reviewer", Keys.TAB, "Reviewer")
    click(driver, "#new-role [value=read-audit]")
    assert seen(driver, "#new-role [value=read-audit]").is_selected()
    click(driver, "#new-role button.primary")
    toast(driver, "Role reviewer created.")
    call(driver, "POST", "/v1/grants", {"role": "reviewer", "user": "nobody"})
    driver.get(page + "/roles")
    click(driver, "[data-opens=edit-role][data-key=reviewer]")
    text(driver, "granted to 1 user", "#edit-role")
    assert seen(driver, "#edit-role [value=read-audit]").is_selected()
    accessible(driver, "edit-role")
    # By the keyboard: the name, another permission, and Enter.
    assert focused(driver).get_attribute("id") == "edit-name"
    focused(driver).send_keys(Keys.END, " of logs")
    driver.execute_script("document.querySelector('#edit-role [value=read-user]').focus()")
    focused(driver).send_keys(Keys.SPACE)
    seen(driver, "#edit-name").send_keys(Keys.ENTER)
    toast(driver, "Role reviewer saved.")
    assert "read-user" in row(driver, "Reviewer of logs").text
    click(driver, "#toasts .toast:last-child button")
    toast(driver, "Undone.")
    assert "read-user" not in row(driver, "Reviewer").text
    # Somebody else is faster.
    click(driver, "[data-opens=edit-role][data-key=reviewer]")
    call(driver, "PATCH", "/v1/roles/reviewer", {"permissions": ["read-audit", "read-group"]})
    click(driver, "#edit-role [value=read-audit]")
    seen(driver, "#edit-name").send_keys(Keys.ENTER)
    text(driver, "read-group: added", "#edit-role")
    next(b for b in driver.find_elements(By.CSS_SELECTOR, "#edit-role .actions button") if b.text == "Reload").click()
    assert "read-group" in row(driver, "Reviewer").text
    click(driver, "[data-opens=delete][data-key=reviewer]")
    text(driver, "granted to 1 user", "#delete")
    click(driver, "#delete button.danger")
    toast(driver, "Role deleted.")
    driver.get(page + "/audit?event=role.")
    text(driver, "root changed role reviewer", "#events")


def by_keys(driver):
    """A user without a pointer: into a group, banned, and back."""
    driver.get(page + "/users/nobody")
    driver.execute_script("document.querySelector('#add-group summary').focus()")
    focused(driver).send_keys(Keys.ENTER)
    focused(driver).send_keys(Keys.TAB)
    assert focused(driver).get_attribute("id") == "group"
    focused(driver).send_keys("dev", Keys.TAB)
    focused(driver).send_keys(Keys.ENTER)
    toast(driver, "nobody added to developers.")
    chip = seen(driver, "[aria-label='Remove from developers']")
    chip.send_keys(Keys.ENTER)
    toast(driver, "nobody removed from developers.")
    driver.execute_script("document.querySelector('[data-opens=ban]').focus()")
    focused(driver).send_keys(Keys.ENTER)
    assert focused(driver).get_attribute("id") == "ban-reason"
    focused(driver).send_keys(Keys.ESCAPE)
    gone(driver, "#ban")
    assert focused(driver).get_attribute("data-opens") == "ban"
    focused(driver).send_keys(Keys.ENTER)
    focused(driver).send_keys("by keys", Keys.ENTER)
    toast(driver, "nobody was banned.")
    seen(driver, "#toasts .toast:last-child button").send_keys(Keys.ENTER)
    toast(driver, "Undone.")


def explained(driver):
    """Any refusal is explained in three clicks: from the overview, and from a line of the access log."""
    made = call(driver, "POST", "/v1/users/alice/tokens", {"name": "explained", "scope": [{"service": "tracker"}]})
    call(driver, "DELETE", f"/v1/tokens/{made['id']}")
    assert through(made["token"]) == 401
    # Refusals are written to the log in batches.
    until(driver, lambda d: driver.get(page + "/audit?event=refusal") or "with explained" in d.find_element(By.TAG_NAME, "main").text)
    driver.get(page + "/overview")
    steady(driver, "overview")
    clicks(driver)
    follow(driver, "revoked token")
    text(driver, "with explained", "#events")
    click(driver, "#events a.chip")
    text(driver, "Refused with 401")
    assert pressed(driver) <= 3, pressed(driver)
    line = {"time": "2026-11-28T12:00:00.000Z", "outcome": "denied", "reason": "read_service_denied", "status": 403,
            "method": "GET", "path": "/hub/api/x", "token_id": None, "user": "nobody", "client": "127.0.0.1"}
    driver.get(page + "/explain")
    seen(driver, "#url").send_keys(json.dumps(line), Keys.ENTER)
    text(driver, "The log says: the account may not read the service")
    text(driver, "Refused with 403", "section[aria-label=Decision]")
    assert seen(driver, "#url").get_attribute("value") == "/hub/api/x"
    accessible(driver, "explain-log")


def many(driver):
    """2,000 tokens of one owner: a page of them is small. How long it takes is reported, not judged."""
    driver.get(page + "/tokens?user=collector")
    text(driver, "1–100 of 2000")
    size = driver.execute_script("return performance.getEntriesByType('navigation')[0].decodedBodySize")
    assert 0 < size < 100_000, size
    FIGURES["2,000 tokens: bytes"] = size
    steady(driver, "2,000 tokens")
    click(driver, "#page-next")
    text(driver, "101–200 of 2000")
    driver.get(page + "/tokens")
    text(driver, "1–100 of")


def invited(driver):
    """From the link to the first request that is let through, without an administrator's help in between."""
    call(driver, "PUT", "/v1/groups/developers/members/newcomer")
    driver.get(page + "/users/newcomer")
    click(driver, "[data-opens=invite]")
    click(driver, "#invitation-link button")
    link = until(driver, lambda d: seen(d, "#invited-link").get_attribute("value"))
    other = browser()
    try:
        watch(other)
        look(other, 1280)
        began = time.monotonic()
        other.get(page + "/invitation#" + link.split("#")[1])
        text(other, "Welcome, newcomer", "#greeting")
        accessible(other, "invitation")
        assert seen(other, "#login").get_attribute("value") == "newcomer"
        clicks(other)
        seen(other, "#password").send_keys(password + Keys.ENTER)
        until(other, lambda d: d.current_url.endswith("/profile/authentication"))
        token = make(other, "first")
        assert through(token) == 200
        text(other, "First request seen", "#made-waiting")
        FIGURES["newcomer: clicks to the first 200"] = pressed(other)
        FIGURES["newcomer: seconds to the first 200, axe-core included"] = round(time.monotonic() - began, 1)
        assert pressed(other) <= 5, pressed(other)
        other.get(page + "/invitation#" + link.split("#")[1])
        text(other, "invalid or has expired")
    finally:
        other.quit()
