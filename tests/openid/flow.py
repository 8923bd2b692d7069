"""Signing in by a provider of another site, in a real browser: PAGE SHOTS are the arguments.

Every step fails by an exception; the last line says that all of it was done."""

import json
import pathlib
import sys

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

page, shots = sys.argv[1:]
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


def sign_in(login):
    """From a page that needs it, by the provider, and back to that page."""
    driver.get(page + "/profile")
    until(lambda d: "/sign-in?next=" in d.current_url)
    driver.save_screenshot(SHOTS / "sign-in.png")
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
    assert seen(".reader .login").text == "zoe"
    assert "developers" in driver.find_element(By.TAG_NAME, "main").text
    cookies = {cookie["name"]: cookie for cookie in driver.get_cookies()}
    assert set(cookies) == {"permgate"}, cookies
    assert cookies["permgate"]["httpOnly"] and cookies["permgate"]["sameSite"] == "Strict", cookies
    driver.get(page + "/v1/session")
    session = json.loads(driver.find_element(By.TAG_NAME, "body").text)
    assert (session["user"], session["by"], session["name"]) == ("zoe", "provider", "The person zoe"), session
    driver.get(page + "/profile")
    seen(".reader button").click()
    until(lambda d: "/sign-in" in d.current_url)
    driver.delete_all_cookies()
    driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    sign_in("yan")
    assert "developers" not in driver.find_element(By.TAG_NAME, "main").text
    print(json.dumps({"done": True}))
except Exception:
    print(driver.current_url, driver.page_source, sep="\n")
    raise
finally:
    driver.quit()
