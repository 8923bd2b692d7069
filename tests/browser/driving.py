"""Driving Chromium: what a person sees and presses, and what holds of every page.

GATEWAY PAGE PASSWORD AXE SHOTS are the arguments of the program."""

import pathlib
import sys
import urllib.error
import urllib.request

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

gateway, page, password, axe, shots = sys.argv[1:]
AXE = pathlib.Path(axe).read_text()
SHOTS = pathlib.Path(shots)
SHOTS.mkdir(parents=True, exist_ok=True)
# What was measured, for whoever reads the test's output.
FIGURES = {}
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def browser(scripts=True):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in FLAGS:
        options.add_argument(flag)
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    return webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def look(driver, width, dark=False):
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def until(driver, what):
    # Content that is replaced takes its elements away.
    return WebDriverWait(driver, 10, ignored_exceptions=[StaleElementReferenceException]).until(what)


def seen(driver, selector):
    return until(driver, lambda d: next((e for e in d.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()), None))


def click(driver, selector):
    def once(d):
        found = next((e for e in d.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed() and e.is_enabled()), None)
        return found and (found.click() or True)
    until(driver, once)


def gone(driver, selector):
    until(driver, lambda d: not any(e.is_displayed() for e in d.find_elements(By.CSS_SELECTOR, selector)))


def follow(driver, words):
    until(driver, lambda d: next((e.click() or True for e in d.find_elements(By.LINK_TEXT, words) if e.is_displayed()), None))


def text(driver, words, selector="main"):
    until(driver, lambda d: words in d.find_element(By.CSS_SELECTOR, selector).text)


def toast(driver, words):
    text(driver, words, "#toasts")


def focused(driver):
    return driver.switch_to.active_element


def sign_in(driver, login):
    driver.delete_all_cookies()
    driver.get(page + "/sign-in")
    seen(driver, "[name=login]").send_keys(login)
    seen(driver, "[name=password]").send_keys(password + Keys.ENTER)
    until(driver, lambda d: d.current_url.endswith("/profile/authentication"))


def call(driver, method, path, body=None):
    """The API, as whoever is signed in."""
    return driver.execute_async_script(
        "const [method, path, body, done] = arguments;"
        "permgate.call(method, path, body ?? undefined).then(done, (error) => done({failed: error.message}))",
        method, path, body)


def steady(driver, name):
    """Nothing moves while a page loads, but columns of a table that is painted before its last row has come: a tenth
    of what counts as good. When it was painted first is reported, not judged."""
    shift, paint, took = driver.execute_async_script(
        "const done = arguments[0]; let sum = 0;"
        "new PerformanceObserver((list) => { for (const e of list.getEntries()) sum += e.value; })"
        ".observe({type: 'layout-shift', buffered: true});"
        "setTimeout(() => done([sum, performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0,"
        " performance.getEntriesByType('navigation')[0].responseEnd]), 150)")
    assert shift < 0.01, (name, shift)
    FIGURES[f"{name}: first paint, ms"] = round(paint)
    FIGURES[f"{name}: answered, ms"] = round(took)


def accessible(driver, name, views=((1280, False), (768, True), (390, False))):
    """axe-core finds nothing, nothing is wider than the window, and the console is silent."""
    for width, dark in views:
        look(driver, width, dark)
        driver.execute_script(AXE)
        found = driver.execute_async_script("const done = arguments[0]; axe.run().then(r => done(r.violations))")
        told = [(v["id"], [(n["html"][:150], n["failureSummary"][-200:]) for n in v["nodes"]][:3]) for v in found]
        assert not told, (name, width, dark, told)
        driver.save_screenshot(SHOTS / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    # 640 is what 1280 pixels are at 200 %.
    for width in (1280, 768, 640, 390):
        look(driver, width)
        wide = driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, (name, width, wide)
    look(driver, 1280)
    # What is refused on purpose is logged by the browser too.
    logged = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"
              and not any(f"status of {code}" in entry["message"] for code in (401, 403, 404, 409, 412, 422))]
    assert not logged, (name, logged)


EVERY = ((1280, False), (1280, True), (768, False), (390, True), (390, False))


def clicks(driver):
    """Pointer presses and keys that press something, from here on until the page is left."""
    driver.execute_script("sessionStorage.pressed = 0")


def watch(driver):
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": (
        "addEventListener('pointerdown', () => sessionStorage.pressed = Number(sessionStorage.pressed || 0) + 1, true);")})


def pressed(driver):
    return int(driver.execute_script("return sessionStorage.pressed ?? 0"))


def through(token, target="/api/issues"):
    request = urllib.request.Request(gateway + target, headers={"Authorization": "Bearer " + token})
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


def make(driver, name):
    """A token by the dialog, copied; its text."""
    click(driver, "[data-opens=new-token]")
    seen(driver, "#create [name=name]").send_keys(name)
    click(driver, "#scope-1")
    click(driver, "#create button.primary")
    token = seen(driver, "#made-text").get_attribute("value")
    click(driver, "#made-copy")
    until(driver, lambda d: d.find_element(By.ID, "made-copy").text == "Copied ✓")
    return token
