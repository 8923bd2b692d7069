"""Every page is quick, accessible in every view, reachable by Tab, and not wider than any window."""

import socket
import time

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from driving import VIEWS, WIDTHS, accessible, call, gateway, gone, look, narrow, page, quick, seen, sign_in, text, through, words_of

PAGES = ["profile/authentication", "profile", "overview", "users", "users/alice", "users/firstname.lastname.of.somewhere", "groups", "groups/developers", "roles", "services",
         "tokens", "live", "audit", "explain", "explain?method=GET&url=/hub/api/x&user=firstname.lastname.of.somewhere", "configuration", "docs", "nothing"]


def whole(driver, path):
    name = path.split("?")[0].replace("/", "-") + ("-answer" if "?" in path else "")
    facts = quick(driver, "/" + path, name)
    accessible(driver, name, VIEWS)
    for width in WIDTHS:
        narrow(driver, name, width)
    for width in (390, driver.width):
        look(driver, width)
        # Only the wide window visits the later stops of long, repetitive pages.
        walked(driver, name, 60 if width == 390 else 200)
    return facts


# The elements that Tab must reach, in order. Of radio buttons only the chosen one; nothing in closed details.
STOPS = """
window.stops = [...document.querySelectorAll("a[href], button, input, select, textarea, summary, iframe, [tabindex]")].filter((one) =>
  one.tabIndex >= 0 && !one.disabled && one.checkVisibility({visibilityProperty: true}) && one.getClientRects().length > 0
  && (one.type !== "radio" || one.checked));
document.activeElement.blur();
getSelection().removeAllRanges();
scrollTo(0, 0);
return stops.length;
"""
# The focused element and its fault: hidden, or without a visible focus outline.
STOP = """
const one = document.activeElement;
// A link may be on two lines.
const {left, top, right, bottom} = one.getClientRects()[0];
const [x0, y0, x1, y1] = [Math.max(left, 0), Math.max(top, 0), Math.min(right, innerWidth), Math.min(bottom, innerHeight)];
const points = [[0.5, 0.5], [0.1, 0.3], [0.9, 0.7]].map(([x, y]) => document.elementFromPoint(x0 + (x1 - x0) * x, y0 + (y1 - y0) * y));
const shown = points.some((there) => there && (one.contains(there) || there.contains(one) && there.matches("label, summary")));
const style = getComputedStyle(one);
const told = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2 || style.boxShadow !== "none";
if (one.type === "date" && one === window.before) return null;
window.before = one;
return [stops.indexOf(one), shown ? told ? "" : "has no outline" : "is hidden", one.outerHTML.slice(0, 120)];
"""


def walked(driver, name, most):
    """Checks that Tab reaches everything that can be pressed or filled, in order, with a visible focus."""
    # A live list would be replaced meanwhile, which adds other stops.
    if driver.execute_script("const live = document.querySelector('[data-refresh]'); live?.removeAttribute('data-refresh'); return Boolean(live)"):
        time.sleep(1)
    many = min(most, driver.execute_script(STOPS))
    driver.execute_script("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
    for number in range(many):
        told = None
        # A date field has a stop for each of its parts.
        while not told:
            ActionChains(driver).send_keys(Keys.TAB).perform()
            told = driver.execute_script(STOP)
        assert told[:2] == [number, ""], (name, driver.execute_script("return innerWidth"), number, many, told)


def signed_out(driver):
    whole(driver, "sign-in")


def signed_in(driver):
    """Every page as a user who sees everything, with a request in flight."""
    sign_in(driver, "viewer")
    made = call(driver, "POST", "/v1/users/me/tokens", {"name": "viewed", "scope": [{"service": "tracker"}]})
    assert through(made["token"]) == 200
    for path in [*PAGES, f"tokens/{made['id']}"]:
        # One request per page, because the gateway's timeout for bodies is short.
        with unfinished(made["token"]):
            whole(driver, path)


def many(driver):
    """With 2,000 tokens of one owner, a page of them is small and quick."""
    facts = whole(driver, "tokens?user=collector")
    text(driver, "1–50 of 2000")
    assert facts["bytes"] < 60_000, facts
    # Only the list is printed.
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert [driver.find_element(By.CSS_SELECTOR, one).is_displayed() for one in ("#tokens", ".topbar", ".sidebar", ".filters")] == [True, False, False, False]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def messages(driver):
    """A message disappears by itself, but not while the pointer is on it."""
    driver.get(page + "/profile")
    driver.execute_script("permgate.toast('Somebody reads this.'); permgate.toast('Nobody reads this.')")
    began = time.monotonic()
    ActionChains(driver).move_to_element(seen(driver, ".toast:first-child p")).perform()
    gone(driver, ".toast:nth-child(2)")
    assert 4 < time.monotonic() - began < 12
    time.sleep(1)
    assert "Somebody" in words_of(driver, ".toast")
    ActionChains(driver).move_to_element(driver.find_element(By.CSS_SELECTOR, "h1")).perform()
    gone(driver, ".toast")


def unfinished(token):
    """Begins a request whose body never ends."""
    host, port = gateway.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    head = f"POST /api/unfinished HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: 1000\r\n\r\n{{"
    connection.sendall(head.encode())
    return connection


PARTS = [signed_out, signed_in, many, messages]
