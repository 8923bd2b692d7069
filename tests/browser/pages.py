"""Every page: quick, accessible in every view, and not wider than any window."""

import socket

from selenium.webdriver.common.by import By

from driving import VIEWS, WIDTHS, accessible, call, gateway, look, narrow, page, quick, sign_in, text, through

PAGES = ["profile/authentication", "profile", "overview", "users", "users/alice", "groups", "groups/developers", "roles", "services",
         "tokens", "live", "audit", "explain", "explain?method=GET&url=/hub/api/x&user=nobody", "configuration", "docs", "nothing"]


def whole(driver, path):
    name = path.split("?")[0].replace("/", "-") + ("-answer" if "?" in path else "")
    facts = quick(driver, "/" + path, name)
    accessible(driver, name, VIEWS)
    for width in WIDTHS:
        narrow(driver, name, width)
    look(driver, 1280)
    return facts


def signed_out(driver):
    whole(driver, "sign-in")


def signed_in(driver):
    """As somebody who sees everything, with a request in flight."""
    sign_in(driver, "viewer")
    made = call(driver, "POST", "/v1/users/me/tokens", {"name": "viewed", "scope": [{"service": "tracker"}]})
    assert through(made["token"]) == 200
    with unfinished(made["token"]):
        for path in [*PAGES, f"tokens/{made['id']}"]:
            whole(driver, path)


def many(driver):
    """2,000 tokens of one owner: a page of them is small and quick."""
    facts = whole(driver, "tokens?user=collector")
    text(driver, "1–50 of 2000")
    assert facts["bytes"] < 60_000, facts
    # On paper the list stands alone.
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert [driver.find_element(By.CSS_SELECTOR, one).is_displayed() for one in ("#tokens", ".topbar", ".sidebar", ".filters")] == [True, False, False, False]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def unfinished(token):
    """A request whose body does not come to its end."""
    host, port = gateway.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    head = f"POST /api/unfinished HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: 1000\r\n\r\n{{"
    connection.sendall(head.encode())
    return connection


PARTS = [signed_out, signed_in, many]
