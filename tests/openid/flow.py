"""Sign-in through a provider of another site, in a real browser. Arguments: PAGE AXE SHOTS.

Every step fails by an exception; the last line says that all steps are done."""

import json
import pathlib
import sys

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

page, axe, shots = sys.argv[1:]
AXE = pathlib.Path(axe).read_text()
SHOTS = pathlib.Path(shots)
SHOTS.mkdir(parents=True, exist_ok=True)
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]

options = webdriver.ChromeOptions()
options.binary_location = "/usr/bin/chromium"
for flag in FLAGS:
    options.add_argument(flag)
driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def until(what):
    return WebDriverWait(driver, 20, ignored_exceptions=[StaleElementReferenceException]).until(what)


def seen(selector):
    return until(lambda d: next((e for e in d.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()), None))


def accessible(name):
    """Checks that axe-core finds nothing, light and dark, wide and narrow."""
    for width in (1280, 390):
        for dark in (False, True):
            metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            driver.execute_script(AXE)
            found = driver.execute_async_script("const done = arguments[0]; axe.run().then(r => done(r.violations))")
            told = [(v["id"], [n["html"][:150] for n in v["nodes"]]) for v in found]
            assert not told, (name, width, dark, told)
            assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), (name, width)
            driver.save_screenshot(SHOTS / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def sign_out():
    driver.get(page + "/profile")
    seen(".avatar").click()
    seen("form[data-call='DELETE /v1/session'] button").click()
    until(lambda d: "/sign-in" in d.current_url)
    # The cookies of both sites; otherwise the provider would not ask again.
    driver.execute_cdp_cmd("Network.clearBrowserCookies", {})


def sign_in(login):
    """Signs in through the provider from a page that requires it, and returns to that page."""
    driver.get(page + "/profile")
    until(lambda d: "/sign-in?next=" in d.current_url)
    until(lambda d: d.find_element(By.LINK_TEXT, "Sign in with Example ID")).click()
    until(lambda d: d.current_url.startswith("http://127.0.0.1:"))
    seen("[name=login]").send_keys(login)
    seen("[name=password]").send_keys("any")
    seen("[type=submit]").click()
    until(lambda d: not d.find_elements(By.NAME, "login"))
    seen("[type=submit]").click()
    until(lambda d: d.current_url == page + "/profile")


try:
    sign_in("zoe")
    seen(".avatar").click()
    assert seen(".who strong").text == "zoe"
    assert "developers" in driver.find_element(By.TAG_NAME, "main").text
    cookies = {cookie["name"]: cookie for cookie in driver.get_cookies()}
    assert set(cookies) == {"permgate"}, cookies
    assert cookies["permgate"]["httpOnly"] and cookies["permgate"]["sameSite"] == "Strict", cookies
    driver.get(page + "/v1/session")
    session = json.loads(driver.find_element(By.TAG_NAME, "body").text)
    assert (session["user"], session["by"], session["name"]) == ("zoe", "provider", "The person zoe"), session
    # The provider's group makes her an administrator, so she can link bob's existing account.
    driver.get(page + "/users/bob")
    accessible("user")
    seen("[name=subject]").send_keys("bob")
    seen("form[data-call*=identities] button").click()
    until(lambda d: "Signs in as" in d.find_element(By.CSS_SELECTOR, "dl.facts").text)
    sign_out()
    accessible("sign-in")
    sign_in("bob")
    assert "Bob of old" in driver.find_element(By.TAG_NAME, "main").text
    sign_out()
    sign_in("yan")
    assert "developers" not in driver.find_element(By.TAG_NAME, "main").text
    print(json.dumps({"done": True}))
except Exception:
    print(driver.current_url, driver.page_source, sep="\n")
    raise
finally:
    driver.quit()
