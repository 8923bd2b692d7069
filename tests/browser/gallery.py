"""Recreates the pictures of docs/page.md. Arguments: the links of alice and root that `permgate demo` prints.

Needs chromium, chromedriver, and selenium and pillow from PyPI."""

import io
import pathlib
import sys
import time
import urllib.request

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

ALICE, ROOT = sys.argv[1:]
BASE = ALICE.split("/sign-in")[0]
PICTURES = pathlib.Path(__file__).parents[2] / "docs/page"
options = webdriver.ChromeOptions()
options.binary_location = "/usr/bin/chromium"
for flag in ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]:
    options.add_argument(flag)
driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))


def sign_in(link):
    driver.get(BASE + "/assets/none")
    driver.delete_all_cookies()
    driver.get("about:blank")
    driver.get(link)
    while "sign-in" in driver.current_url:
        time.sleep(0.1)


def look(width, height, dark=False):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def take(name, path=None, height=760, width=1280, dark=False, to=None):
    look(width, height, dark)
    if path:
        driver.get(BASE + path)
    time.sleep(0.6)
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    to = to or (793 if width > 1000 else 520 if width > 500 else 280)
    picture = picture.resize((to, round(picture.height * to / width)), Image.Resampling.LANCZOS)
    # A palette keeps rare colours at half the size.
    picture.quantize(255, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(PICTURES / f"{name}.png", optimize=True)


def press(selector):
    next(e for e in driver.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()).click()
    time.sleep(0.4)


def call(method, path, body=None):
    return driver.execute_async_script(
        "const [m, p, b, done] = arguments; permgate.call(m, p, b ?? undefined).then(done, (e) => done({failed: e.message}))",
        method, path, body)


def used(token, target):
    request = urllib.request.Request("http://127.0.0.1:8080" + target, headers={"Authorization": "Bearer " + token})
    try:
        urllib.request.urlopen(request).close()
    except urllib.error.HTTPError:
        pass


look(1280, 760)
sign_in(ROOT)
for key, permissions in [("auditor", ["read-audit", "read-user", "read-group"]), ("helpdesk", ["read-user", "update-user"])]:
    call("POST", "/v1/roles", {"key": key, "name": key.capitalize(), "permissions": permissions})
call("POST", "/v1/grants", {"role": "auditor", "user": "bob"})
scope = [{"service": "youtrack", "access": "read"}]
made = call("POST", "/v1/users/alice/tokens", {"name": "dashboard", "scope": scope, "expires_in": "60d"})
for number in range(60):
    used(made["token"], "/hub/api/x" if number % 12 == 0 else "/api/issues")

sign_in(ALICE)
take("tokens", "/profile/authentication")
take("phone-tokens", "/profile/authentication", 845, 390)
take("phone-new", "/profile/authentication#new=youtrack", 845, 390)
take("new-token", "/profile/authentication#new=youtrack", 800)
take("new-token-dark", "/profile/authentication#new=youtrack", 800, dark=True)
driver.find_element(By.ID, "token-name").send_keys("release notes bot")
press("#create button.primary")
take("created", height=760)
press("#made-copy")
press("#made-close")
press("#tokens tbody a")
press("[data-opens=replace]")
press("#rotate button.primary")
press("#made-copy")
press("#made-close")
take("rotation")

sign_in(ROOT)
take("overview", "/overview", 1180)
take("overview-dark", "/overview", 1180, dark=True)
take("phone-overview", "/overview", 845, 390, dark=True)
take("all-tokens", "/tokens")
take("tablet-tokens", "/tokens", 900, 768)
take("user", "/users/alice", 900)
take("groups", "/groups", 640)
take("services", "/services", 560)
take("explain", "/explain?method=GET&url=/hub/api/x&user=alice")
take("audit", "/audit")
take("configuration", "/configuration")
driver.get(BASE + "/roles")
press("[data-opens=edit-role]")
take("roles")
driver.get(BASE + "/design")
take("design", height=1400)
driver.quit()
