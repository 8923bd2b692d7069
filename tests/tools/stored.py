"""What pages of other sites can do with a password that Chromium has stored. Arguments: GATE, a login, its
token, and OTHER... The last segment of a path names the attempt."""

import sys
import time

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

gate, login, token, *others = sys.argv[1:]
options = webdriver.ChromeOptions()
options.binary_location = "/usr/bin/chromium"
for flag in ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-popup-blocking"]:
    options.add_argument(flag)
driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
driver.set_script_timeout(10)

TRIES = {
    "fetch": "fetch(url, {mode: 'no-cors', credentials: 'include'})",
    "post": "fetch(url, {mode: 'no-cors', credentials: 'include', method: 'POST', body: 'x'})",
    "cors": "fetch(url, {credentials: 'include'})",
    "beacon": "navigator.sendBeacon(url, 'x')",
    "image": "new Image().src = url",
    "script": "document.body.append(Object.assign(document.createElement('script'), {src: url}))",
    "style": "document.body.append(Object.assign(document.createElement('link'), {rel: 'stylesheet', href: url}))",
    "frame": "document.body.append(Object.assign(document.createElement('iframe'), {src: url}))",
    "events": "new EventSource(url, {withCredentials: true})",
    "socket": "new WebSocket(url.replace('http', 'ws'))",
    "window": "window.open(url)",
    "link": "location = url",
    "form": """const form = Object.assign(document.createElement('form'), {method: 'POST', action: url});
               document.body.append(form); form.submit()""",
}

for number, other in enumerate(others):
    for name, attempt in TRIES.items():
        # Chromium forgets a password that was refused.
        driver.get(f"http://{login}:{token}@{gate}/api/sign-in")
        driver.get(f"http://{gate}/api/own-{number}-{name}")
        driver.get(f"http://{other}/")
        driver.execute_script(f"const url = arguments[0]; {attempt}", f"http://{gate}/api/try-{number}-{name}")
        time.sleep(0.3)
        while len(driver.window_handles) > 1:
            driver.switch_to.window(driver.window_handles[-1])
            driver.close()
            driver.switch_to.window(driver.window_handles[0])
print(len(TRIES) * len(others))
driver.quit()
