"""Drives Chromium: what a person sees and presses, and checks that apply to every page.

The program's arguments are GATEWAY PAGE PASSWORD AXE SHOTS FILE; FILE is the gateway's configuration."""

import os
import pathlib
import sys
import urllib.error
import urllib.request

from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

gateway, page, password, axe, shots, file = sys.argv[1:]
AXE = pathlib.Path(axe).read_text()
SHOTS = pathlib.Path(shots)
SHOTS.mkdir(parents=True, exist_ok=True)
TIMED = "PERMGATE_PAGE_TIMES" in os.environ
# Measurements, printed at the end of the test.
FIGURES = {}
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def browser(scripts=True, width=1280):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in FLAGS:
        options.add_argument(flag)
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    # Counts pointer presses and presses of Enter.
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": (
        "for (const kind of ['pointerdown', 'keydown']) addEventListener(kind, (event) => {"
        " if ((event.key ?? 'Enter') === 'Enter') sessionStorage.pressed = Number(sessionStorage.pressed || 0) + 1; }, true);")})
    driver.set_script_timeout(120)
    at(driver, width)
    return driver


def at(driver, width):
    """Sets the width of the person's window from here on."""
    driver.width = width
    look(driver, width)


def look(driver, width, dark=False):
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def until(driver, what):
    # Replaced content makes elements stale, which raises several exceptions, and a message may cover the
    # element that is to be pressed.
    return WebDriverWait(driver, 40, poll_frequency=0.05, ignored_exceptions=[WebDriverException]).until(what)


def seen(driver, selector):
    return until(driver, lambda d: next((e for e in d.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()), None))


def ready(driver, selector):
    return next((e for e in driver.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed() and e.is_enabled()), None)


def click(driver, selector):
    until(driver, lambda d: (found := ready(d, selector)) and (found.click() or True))


def click_named(driver, selector, words):
    until(driver, lambda d: next((e.click() or True for e in d.find_elements(By.CSS_SELECTOR, selector) if e.text == words), None))


def write(driver, selector, *keys):
    until(driver, lambda d: (field := ready(d, selector)) and (field.send_keys(*keys) or True))


def words_of(driver, selector):
    return until(driver, lambda d: seen(d, selector).text)


def value_of(driver, selector):
    return until(driver, lambda d: seen(d, selector).get_attribute("value"))


def gone(driver, selector):
    until(driver, lambda d: not any(e.is_displayed() for e in d.find_elements(By.CSS_SELECTOR, selector)))


def follow(driver, words):
    until(driver, lambda d: next((e.click() or True for e in d.find_elements(By.LINK_TEXT, words) if e.is_displayed()), None))


def text(driver, words, selector="main"):
    """Waits for the words. On failure, reports the texts that were shown instead."""
    told = [""]

    def there(d):
        now = d.find_element(By.CSS_SELECTOR, selector).text
        if now != told[-1]:
            told.append(now)
        return words in now

    try:
        until(driver, there)
    except TimeoutException:
        raise AssertionError((words, [one[-500:] for one in told[-4:]])) from None


def without(driver, words, selector="main"):
    until(driver, lambda d: words not in d.find_element(By.CSS_SELECTOR, selector).text)


def put(driver, selector, *keys):
    """Clears and fills a field. A list's filter field may be replaced by the answer to the previous input."""
    def once(d):
        field = seen(d, selector)
        field.clear()
        field.send_keys(*keys)
        return True

    until(driver, once)


def toast(driver, words):
    text(driver, words, "#toasts")


def row(driver, words):
    """Returns the text of the table row that contains the words."""
    return until(driver, lambda d: next((told for r in d.find_elements(By.CSS_SELECTOR, "tbody tr") if words in (told := r.text)), None))


def focused(driver):
    return driver.switch_to.active_element


class Pointer:
    """An input method and a window width. Flows run with each of them."""

    press = staticmethod(click)

    def __init__(self, width):
        self.width, self.name = width, f"pointer-{width}"

    @staticmethod
    def choose(driver, selector, words):
        until(driver, lambda d: (field := ready(d, selector)) and (Select(field).select_by_visible_text(words) or True))


class Keyboard:
    def __init__(self, width):
        self.width, self.name = width, f"keys-{width}"

    @staticmethod
    def press(driver, selector):
        """Presses an element by key. It must be reachable by Tab and not be behind a dialog."""
        def once(d):
            found = ready(d, selector)
            if not found:
                return False
            d.execute_script("arguments[0].focus()", found)
            assert focused(d) == found and found.get_property("tabIndex") >= 0, selector
            found.send_keys(Keys.SPACE if found.get_attribute("type") == "checkbox" else Keys.ENTER)
            return True
        until(driver, once)

    @staticmethod
    def choose(driver, selector, words):
        seen(driver, selector).send_keys(words)
        # If the choice reloads the list, another field replaces this one.
        until(driver, lambda d: (field := ready(d, selector)) and Select(field).first_selected_option.text == words)


# The window widths that flows run in. Each has one input method, or both with PERMGATE_PAGE_HANDS=all.
WINDOWS = (1280, 768, 390)
HANDS = [Pointer(1280), Keyboard(768), Pointer(390)]
if os.environ.get("PERMGATE_PAGE_HANDS") == "all":
    HANDS = [kind(width) for width in WINDOWS for kind in (Pointer, Keyboard)]


def undo(driver, hand):
    # An earlier "Undone." may still be shown.
    driver.execute_script("for (const toast of document.querySelectorAll('.toast')) toast.classList.add('old')")
    hand.press(driver, "#toasts .toast:last-child button:not([aria-label])")
    text(driver, "Undone.", ".toast:not(.old)")


def sign_in(driver, login):
    driver.delete_all_cookies()
    driver.get(page + "/sign-in")
    write(driver, "[name=login]", login)
    write(driver, "[name=password]", password + Keys.ENTER)
    until(driver, lambda d: d.current_url.endswith("/profile/authentication"))


def call(driver, method, path, body=None):
    """Calls the API as the signed-in user."""
    return driver.execute_async_script(
        "const [method, path, body, done] = arguments;"
        "permgate.call(method, path, body ?? undefined).then(done, (error) => done({failed: error.message}))",
        method, path, body)


# Returns its result once the page has been painted and layout shifts had time to happen.
FACTS = """
const done = arguments[0];
const moves = [];
new PerformanceObserver((list) => moves.push(...list.getEntries())).observe({type: "layout-shift", buffered: true});
new PerformanceObserver((list) => {
  const [paint] = list.getEntriesByName("first-contentful-paint");
  if (!paint) return;
  setTimeout(() => {
    const [document] = performance.getEntriesByType("navigation");
    const others = performance.getEntriesByType("resource");
    done({
      moved: moves.reduce((sum, move) => sum + move.value, 0),
      painted: paint.startTime, answered: document.responseEnd, bytes: document.decodedBodySize,
      // One that is used twice is listed twice.
      assets: [...new Map(others.map((one) => [one.name, one.decodedBodySize])).values()].reduce((sum, one) => sum + one, 0),
      blocking: others.filter((one) => one.renderBlockingStatus === "blocking").map((one) => new URL(one.name).pathname),
    });
  }, 100);
}).observe({type: "paint", buffered: true});
"""


def quick(driver, path, name):
    """Checks that nothing moves while the page loads, and that only the style blocks painting. The load time
    is printed, and compared with the limits if PERMGATE_PAGE_TIMES is set, which needs an otherwise idle
    machine. The best of several loads counts."""
    painted, answered = 1e9, 1e9
    for _ in range(5 if TIMED else 1):
        driver.get(page + path)
        facts = driver.execute_async_script(FACTS)
        assert facts["moved"] == 0, (name, facts)
        assert len(facts["blocking"]) == 1 and facts["blocking"][0].endswith(".css"), (name, facts)
        assert 0 < facts["assets"] < 60_000 and 0 < facts["bytes"], (name, facts)
        painted, answered = min(painted, facts["painted"]), min(answered, facts["answered"])
    FIGURES[name] = f"first paint {painted:.0f} ms, answered in {answered:.0f} ms, {facts['bytes']} bytes"
    assert not TIMED or painted <= 200 and answered <= 150, (name, painted, answered)
    return facts


# Widths for checks of a whole page; 640 is 1280 pixels at 200 %.
VIEWS = (1280, 768, 640, 390)
# Both ends of each layout.
WIDTHS = (320, 360, 480, 600, 641, 700, 849, 960, 961, 1120, 1121, 1400)


def narrow(driver, name, width):
    """Checks that neither the page nor a table or dialog in it scrolls sideways, and that the window cuts off no button
    and no form of an *+ Add*; one pixel is rounding."""
    look(driver, width)
    wide = driver.execute_script(
        "return [document.documentElement, ...document.querySelectorAll('.table, dialog[open] .dialog-body')]"
        ".filter((one) => one.scrollWidth > one.clientWidth + 1 && (one === document.documentElement || getComputedStyle(one).overflowX !== 'visible'))"
        ".map((one) => [one.tagName, one.className, one.scrollWidth - one.clientWidth])")
    assert not wide, (name, width, wide)
    cut = driver.execute_script(
        "const adds = [...document.querySelectorAll('details.add:not([open])')]; adds.forEach((one) => (one.open = true));"
        "const cut = [...document.querySelectorAll('main :is(button, .button, details.add > form)')]"
        ".filter((one) => one.checkVisibility() && one.getBoundingClientRect().right > innerWidth + 1)"
        ".map((one) => [one.tagName, one.textContent.trim().slice(0, 60), one.getBoundingClientRect().right]);"
        "adds.forEach((one) => (one.open = false)); return cut")
    assert not cut, (name, width, cut)
    if width == 390:
        small = driver.execute_script(
            "return [...document.querySelectorAll('button, .button, summary, select, input:not([type=checkbox], [type=radio], [type=hidden])')]"
            ".filter((one) => one.checkVisibility() && !one.matches('.avatar *, .avatar, .skip') && one.getBoundingClientRect().height < 43.5)"
            ".map((one) => [one.tagName, one.className, one.textContent.trim().slice(0, 30), one.getBoundingClientRect().height])")
        assert not small, (name, "a finger needs 44 px", small)


# Names of the pages that have been checked.
LOOKED = set()


def accessible(driver, name, views=(1280, 390)):
    """Checks that axe-core finds nothing in a page or in its open dialog, light or dark, and that the console
    is silent. Runs once per name; later calls with the same name only check the width."""
    if name in LOOKED:
        return narrow(driver, name, driver.width)
    LOOKED.add(name)
    driver.execute_script(AXE)
    for width in views:
        narrow(driver, name, width)
        for dark in (False, True) if width != 640 else (False,):
            look(driver, width, dark)
            # The scheme changes only colours.
            rules = {"preload": False, **({"runOnly": ["color-contrast", "link-in-text-block"]} if dark else {})}
            # A message that is still fading in has less contrast.
            found = driver.execute_async_script(
                "const [rules, done] = arguments;"
                "const ending = document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime < Infinity);"
                "Promise.allSettled(ending.map((one) => one.finished))"
                ".then(() => axe.run(document.querySelector('dialog[open]') ?? document, rules))"
                ".then((said) => done(said.violations))", rules)
            told = [(v["id"], [(n["html"][:150], n["failureSummary"][-200:]) for n in v["nodes"]][:3]) for v in found]
            assert not told, (name, width, dark, told)
            if width in (1280, 390):
                driver.save_screenshot(SHOTS / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    look(driver, driver.width)
    # The browser also logs refusals that the test causes on purpose.
    logged = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"
              and not any(f"status of {code}" in entry["message"] for code in (401, 403, 404, 409, 412, 422))]
    assert not logged, (name, logged)


def clicks(driver):
    """Counts pointer and key presses from here on until the page is left."""
    driver.execute_script("sessionStorage.pressed = 0")


def pressed(driver):
    return int(driver.execute_script("return sessionStorage.pressed ?? 0"))


def through(token, target="/api/issues"):
    request = urllib.request.Request(gateway + target, headers={"Authorization": "Bearer " + token})
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


def make(driver, name, hand=Pointer):
    """Creates a token in the dialog and copies it. Returns its text."""
    hand.press(driver, "[data-opens=new-token]")
    write(driver, "#create [name=name]", name)
    hand.press(driver, "#scope-1")
    hand.press(driver, "#create button.primary")
    token = value_of(driver, "#made-text")
    hand.press(driver, "#made-copy")
    until(driver, lambda d: d.find_element(By.ID, "made-copy").text == "Copied ✓")
    return token
