"""The page in a real browser: GATEWAY PAGE PASSWORD AXE SHOTS are the arguments.

Every step fails by an exception; the last line says that all of it was done."""

import json
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
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in FLAGS:
        options.add_argument(flag)
    return webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def look(driver, width, dark):
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                           {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def until(driver, what):
    # A page that is being loaded again takes its elements away.
    return WebDriverWait(driver, 10, ignored_exceptions=[StaleElementReferenceException]).until(what)


def seen(driver, selector):
    return until(driver, lambda d: next((e for e in d.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()), None))


def press(driver, text):
    button = until(driver, lambda d: next((b for b in d.find_elements(By.TAG_NAME, "button")
                                           if b.is_displayed() and b.text.split("\n")[0].strip() == text), None))
    button.click()


def sign_in(driver, login):
    driver.get(page + "/sign-in")
    seen(driver, "[name=login]").send_keys(login)
    seen(driver, "[name=password]").send_keys(password + Keys.ENTER)
    until(driver, lambda d: d.current_url.endswith("/profile/authentication"))


def accessible(driver, name):
    """axe-core finds nothing, nothing is wider than the window, and the console is silent."""
    for width in (1280, 390):
        for dark in (False, True):
            look(driver, width, dark)
            driver.execute_script(AXE)
            found = driver.execute_async_script("const done = arguments[0]; axe.run().then(r => done(r.violations))")
            told = [(v["id"], [n["html"][:150] for n in v["nodes"]]) for v in found]
            assert not told, (name, width, dark, told)
            assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), (name, width)
            driver.save_screenshot(SHOTS / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    look(driver, 1280, False)
    # A page that is denied is a 403, which the browser tells of too.
    logged = [entry for entry in driver.get_log("browser")
              if entry["level"] == "SEVERE" and "status of 403" not in entry["message"]]
    assert not logged, (name, logged)


def through(token, target="/api/issues"):
    request = urllib.request.Request(gateway + target, headers={"Authorization": "Bearer " + token})
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


def person(driver):
    driver.get(page + "/sign-in")
    accessible(driver, "sign-in")
    driver.get(page + "/invitation")
    accessible(driver, "invitation")
    sign_in(driver, "alice")
    press(driver, "New token")
    accessible(driver, "new-token")
    seen(driver, "#create [name=name]").send_keys("from the page")
    press(driver, "Create token")
    assert "at least one service" in seen(driver, "#create .wrong").text
    seen(driver, "#scope-1").click()
    press(driver, "Create token")
    token = seen(driver, "#made-text").get_attribute("value")
    assert token.startswith("pgt_") and token in seen(driver, "#made-curl").get_attribute("value")
    accessible(driver, "made")
    press(driver, "Close")
    assert "has not been copied" in seen(driver, "#made-ask").text
    press(driver, "Go back")
    press(driver, "Copy token")
    until(driver, lambda d: d.find_element(By.ID, "made-said").text == "Copied.")
    press(driver, "Close")
    until(driver, lambda d: "from the page" in d.find_element(By.ID, "tokens").text)
    assert token not in driver.page_source
    assert through(token) == 200
    accessible(driver, "authentication")
    press(driver, "Revoke")
    until(driver, lambda d: d.find_element(By.ID, "revoke").is_displayed())
    driver.find_element(By.CSS_SELECTOR, "#revoke button.danger").click()
    until(driver, lambda d: d.find_elements(By.CSS_SELECTOR, "#tokens .state.revoked"))
    assert through(token) == 401
    driver.get(page + "/profile")
    accessible(driver, "profile")


def keyboard(driver):
    """The dialog without a pointer: opened, filled, created, copied and closed."""
    driver.get(page + "/profile/authentication")
    button = seen(driver, "[data-opens=new-token]")
    driver.execute_script("arguments[0].focus()", button)
    active = driver.switch_to.active_element
    active.send_keys(Keys.ENTER)
    driver.switch_to.active_element.send_keys("by keys", Keys.TAB)
    driver.switch_to.active_element.send_keys(Keys.SPACE)
    seen(driver, "#create [name=name]").send_keys(Keys.ENTER)
    token = seen(driver, "#made-text").get_attribute("value")
    driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert "has not been copied" in seen(driver, "#made-ask").text
    assert driver.switch_to.active_element.get_attribute("id") == "made-stay"
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    seen(driver, "#made-text").send_keys(Keys.CONTROL, "c")
    until(driver, lambda d: d.find_element(By.ID, "made-said").text == "Copied.")
    seen(driver, "#made-text").send_keys(Keys.ESCAPE)
    until(driver, lambda d: not d.find_element(By.ID, "made").is_displayed())
    assert through(token) == 200


def denied(driver):
    sign_in(driver, "nobody")
    assert "Update Self" in driver.find_element(By.TAG_NAME, "main").text
    assert not driver.find_elements(By.ID, "create")
    driver.get(page + "/users")
    assert "read-user" in seen(driver, ".note.bad").text
    accessible(driver, "denied")


def administrator(driver):
    sign_in(driver, "root")
    for name in ["overview", "users", "users/alice", "groups", "groups/developers", "roles", "services",
                 "tokens", "live", "audit", "configuration", "docs"]:
        driver.get(f"{page}/{name}")
        accessible(driver, name.replace("/", "-"))
    driver.get(page + "/explain")
    seen(driver, "[name=url]").send_keys("/hub/api/x")
    seen(driver, "[name=user]").send_keys("nobody", Keys.ENTER)
    told = seen(driver, "section[aria-label=Decision]").text
    assert "403" in told and "The deciding line" in told, told
    accessible(driver, "explain")


for part in (person, denied, administrator):
    driver = browser()
    try:
        part(driver)
        if part is person:
            keyboard(driver)
    finally:
        driver.quit()
print(json.dumps({"done": True}))
