"""WebSockets of a page in Chromium. Arguments: PAGE SOCKET TOKEN... Prints a line for each token: what the
socket received, the selected protocol, how it closed, and the console's messages."""

import json
import sys

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

page, socket, *tokens = sys.argv[1:]
options = webdriver.ChromeOptions()
options.binary_location = "/usr/bin/chromium"
for flag in ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]:
    options.add_argument(flag)
options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
driver.set_script_timeout(10)
driver.get(page)
for token in tokens:
    heard = driver.execute_async_script(
        """const [url, token, done] = arguments;
           const socket = new WebSocket(url, ["chat", `permgate.bearer.${token}`]);
           socket.onmessage = (event) => { done([event.data, socket.protocol, 0]); socket.close(); };
           socket.onclose = (event) => done(["", "", event.code]);""", socket, token)
    print(json.dumps([*heard, " ".join(entry["message"] for entry in driver.get_log("browser")
                                       if "WebSocket" in entry["message"])]))
driver.quit()
