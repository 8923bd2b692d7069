"""The page in a real browser; see `driving` for the arguments.

Every step fails by an exception; the last line says that all steps are done."""

import json
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

import administration
import pages
from driving import (FIGURES, HANDS, SHOTS, TIMED, WINDOWS, accessible, browser, click, clicks, focused, follow, gone, look,
                     make, page, password, pressed, put, seen, sign_in, text, through, toast, undo, until, value_of, words_of, write)


def login(driver):
    """Each window has its own person without tokens."""
    return f"alice-{driver.width}"


def hands(driver):
    """The input methods for this window."""
    return [hand for hand in HANDS if hand.width == driver.width]


def person(driver):
    """A person's first token by pointer, starting from the empty list."""
    sign_in(driver, login(driver))
    text(driver, "Create your first token")
    accessible(driver, "first-token")
    click(driver, "[data-opens=new-token]")
    assert Select(seen(driver, "#expiry")).first_selected_option.text == "90 days"
    seen(driver, "#scope-1")
    # On a narrow window the access is only shown for chosen services.
    assert driver.find_element(By.CSS_SELECTOR, "#scope-1 ~ select").get_attribute("value") == "read"
    # An error is shown at its field, which gets the focus.
    click(driver, "#create button.primary")
    assert focused(driver).get_attribute("id") == "token-name" and focused(driver).get_attribute("aria-invalid") == "true"
    write(driver, "#create [name=name]", "from the page")
    # With eight services or more there is a search field.
    write(driver, "#find-service", "vault", Keys.ENTER)
    assert [row.text.split()[0] for row in driver.find_elements(By.CSS_SELECTOR, "#create .service") if row.is_displayed()] == ["vault"]
    write(driver, "#find-service", Keys.CONTROL, "a", Keys.DELETE)
    click(driver, "#create button.primary")
    assert "at least one service" in words_of(driver, "#create fieldset .field-error")
    accessible(driver, "new-token")
    click(driver, "#scope-1")
    assert words_of(driver, "#create .summary").startswith("Reads ")
    click(driver, "#create button.primary")
    token = value_of(driver, "#made-text")
    assert token.startswith("pgt_") and token in value_of(driver, "#made-curl")
    accessible(driver, "made")
    click(driver, "#made-close")
    assert "have not copied" in words_of(driver, "#made-ask")
    click(driver, "#made-stay")
    click(driver, "#made-copy")
    until(driver, lambda d: d.find_element(By.ID, "made-copy").text == "Copied ✓")
    text(driver, "Waiting for its first use", "#made-waiting")
    assert through(token) == 200
    text(driver, "First request seen", "#made-waiting")
    click(driver, "#made-close")
    text(driver, "from the page", "#tokens")
    toast(driver, "created")
    assert token not in driver.page_source
    accessible(driver, "authentication")
    # The name is taken.
    click(driver, "[data-opens=new-token]")
    write(driver, "#create [name=name]", "From the page")
    write(driver, "#find-service", "no such service")
    seen(driver, "#none-found")
    write(driver, "#find-service", Keys.BACK_SPACE * 15)
    gone(driver, "#none-found")
    # Software that fills in a form may report a choice by `change` alone.
    choose = "const one = document.querySelector('#expiry'); one.value = arguments[0]; one.dispatchEvent(new Event('change', {bubbles: true}))"
    driver.execute_script(choose, "never")
    seen(driver, "#never-warning")
    driver.execute_script(choose, "90")
    gone(driver, "#never-warning")
    click(driver, "#scope-1")
    click(driver, "#create button.primary")
    seen(driver, "#create #name-error")
    assert focused(driver).get_attribute("id") == "token-name"
    click(driver, "#create [data-closes]")
    # Revoking asks for confirmation and shows the last use.
    click(driver, "#tokens [data-opens=revoke]")
    text(driver, "last used", "#revoke")
    click(driver, "#revoke button.danger")
    toast(driver, "Token revoked.")
    assert through(token) == 401
    click(driver, "#tab-3")
    text(driver, "from the page", "#tokens")
    assert "tab=inactive" in driver.current_url
    seen(driver, "#tokens .chip.bad")


def counted(driver):
    """From sign-in to the copied token in five clicks."""
    sign_in(driver, login(driver))
    clicks(driver)
    make(driver, "counted")
    # One more for the click that signs in.
    FIGURES[f"from sign-in to the copied text in a window of {driver.width}: clicks"] = pressed(driver) + 1
    assert pressed(driver) + 1 <= 5, pressed(driver)
    click(driver, "#made-close")
    gone(driver, "#made")


def keyboard(driver):
    """The dialog without a pointer: opened, filled, created, copied and closed."""
    driver.get(page + "/profile/authentication")
    button = seen(driver, "[data-opens=new-token]")
    driver.execute_script("arguments[0].focus()", button)
    focused(driver).send_keys(Keys.ENTER)
    focused(driver).send_keys("by keys", Keys.TAB)
    assert focused(driver).get_attribute("id") == "expiry"
    focused(driver).send_keys(Keys.TAB)
    assert focused(driver).get_attribute("id") == "find-service"
    focused(driver).send_keys("tracker", Keys.TAB)
    focused(driver).send_keys(Keys.SPACE)
    write(driver, "#create [name=name]", Keys.ENTER)
    token = value_of(driver, "#made-text")
    focused(driver).send_keys(Keys.ESCAPE)
    assert "have not copied" in words_of(driver, "#made-ask")
    assert focused(driver).get_attribute("id") == "made-stay"
    focused(driver).send_keys(Keys.ENTER)
    write(driver, "#made-text", Keys.CONTROL, "c")
    write(driver, "#made-text", Keys.ESCAPE)
    gone(driver, "#made")
    assert through(token) == 200
    # The search has a shortcut key. Menus close by Escape, and the focus returns to where it was.
    until(driver, lambda d: not d.find_elements(By.CSS_SELECTOR, "dialog[open]"))
    driver.find_element(By.TAG_NAME, "body").send_keys("/")
    assert focused(driver).get_attribute("id") == "find"
    focused(driver).send_keys("by keys")
    until(driver, lambda d: "q=by" in d.current_url and len(d.find_elements(By.CSS_SELECTOR, "#tokens tbody tr")) == 1)
    assert focused(driver).get_attribute("id") == "find"
    look(driver, 390)
    menu = seen(driver, ".menu-button")
    menu.send_keys(Keys.ENTER)
    seen(driver, "#menu a")
    focused(driver).send_keys(Keys.ESCAPE)
    gone(driver, "#menu")
    assert focused(driver).get_attribute("popovertarget") == "menu"
    look(driver, driver.width)


def rotation(driver):
    """A token is replaced, and the old one revoked, then the new one, by each input method."""
    for hand in hands(driver):
        driver.get(page + "/profile/authentication")
        token = make(driver, f"rotated by {hand.name}", hand)
        hand.press(driver, "#made-close")
        gone(driver, "#made")
        follow(driver, f"rotated by {hand.name}")
        hand.press(driver, "[data-opens=replace]")
        hand.choose(driver, "#grace", "1 hour")
        hand.press(driver, "#rotate button.primary")
        new = value_of(driver, "#made-text")
        assert new != token and through(new) == 200 and through(token) == 200
        hand.press(driver, "#made-copy")
        until(driver, lambda d: d.find_element(By.ID, "made-copy").text == "Copied ✓")
        hand.press(driver, "#made-close")
        text(driver, "Rotation in progress")
        accessible(driver, "rotation")
        hand.press(driver, "#rotation form button")
        hand.press(driver, "#confirm [value=yes]")
        toast(driver, "The old token was revoked.")
        assert through(new) == 200 and through(token) == 401
        driver.get(page + "/profile/authentication?q=rotated")
        hand.press(driver, "#tokens [data-opens=revoke]")
        hand.press(driver, "#revoke button.danger")
        toast(driver, "Token revoked.")
        assert through(new) == 401


def profile(driver):
    """A token's facts and one's own are changed by each input method; then sign-out."""
    for hand in hands(driver):
        driver.get(page + "/profile/authentication")
        make(driver, f"changed by {hand.name}", hand)
        hand.press(driver, "#made-close")
        gone(driver, "#made")
        follow(driver, f"changed by {hand.name}")
        write(driver, "#edit-note", "in the cellar")
        hand.press(driver, "form:has(#edit-note) button")
        toast(driver, "Changes saved.")
        undo(driver, hand)
        until(driver, lambda d: seen(d, "#edit-note").get_attribute("value") == "")
        write(driver, "#shorten-date", "01022099")
        hand.press(driver, "#shorten button")
        seen(driver, "#shorten .wrong, #shorten .field-error")
        driver.get(page + "/profile")
        write(driver, "[name=current]", "wrong")
        write(driver, "[name=password]", "another passphrase")
        hand.press(driver, "form:has([name=current]) button")
        text(driver, "password", ".field-error")
        hand.press(driver, ".avatar")
        hand.press(driver, "#account form button")
        until(driver, lambda d: d.current_url.endswith("/sign-in"))
        sign_in(driver, login(driver))


def session_ends(driver):
    """The session ends while the dialog is open: no input is lost."""
    driver.get(page + "/profile/authentication")
    click(driver, "[data-opens=new-token]")
    write(driver, "#create [name=name]", "renewed")
    click(driver, "#scope-1")
    driver.delete_all_cookies()
    click(driver, "#create button.primary")
    write(driver, "#renew-password", "wrong" + Keys.ENTER)
    text(driver, "wrong", "#renew .wrong")
    accessible(driver, "renew")
    put(driver, "#renew-password", password + Keys.ENTER)
    # Waiting for the token's first use is no reason to ask for the password again.
    seen(driver, "#made-text")
    cookies = driver.get_cookies()
    driver.delete_all_cookies()
    time.sleep(3.5)
    assert not driver.find_element(By.ID, "renew").is_displayed()
    for cookie in cookies:
        driver.add_cookie(cookie)
    assert through(value_of(driver, "#made-text")) == 200
    click(driver, "#made-copy")
    click(driver, "#made-close")
    gone(driver, "#made")
    text(driver, "renewed", "#tokens")


def slow(driver):
    """On a slow network a pressed button is busy and cannot be pressed again."""
    driver.get(page + "/profile")
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions",
                           {"offline": False, "latency": 700, "downloadThroughput": -1, "uploadThroughput": -1})
    click(driver, "[data-opens=edit-profile]")
    put(driver, "#profile-name", "Alice A.", Keys.ENTER)
    button = driver.find_element(By.CSS_SELECTOR, "#edit-profile button.primary")
    assert button.get_attribute("aria-busy") == "true" and not button.is_enabled()
    toast(driver, "Profile saved.")
    driver.execute_cdp_cmd("Network.emulateNetworkConditions",
                           {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1})


def denied(driver):
    sign_in(driver, "nobody")
    text(driver, "Update Self")
    assert not driver.find_elements(By.ID, "create")
    driver.get(page + "/users")
    text(driver, "read-user")
    seen(driver, "nav a[href='/profile']")
    accessible(driver, "denied")


def lured(driver):
    """A sign-in link must not be able to put the password into the next address."""
    driver.delete_all_cookies()
    driver.get(page + "/sign-in?next=%2Fprofile%3Fx%3D%7Bpassword%7D")
    write(driver, "[name=login]", "alice")
    write(driver, "[name=password]", password + Keys.ENTER)
    until(driver, lambda d: "/profile" in d.current_url.split("/sign-in")[0] and "sign-in" not in d.current_url)
    assert password.split()[0] not in driver.current_url, driver.current_url


def scriptless(driver):
    """Without the script nothing is sent, least of all in an address."""
    driver.get(page + "/sign-in")
    assert "JavaScript" in driver.find_element(By.TAG_NAME, "noscript").text
    driver.find_element(By.NAME, "login").send_keys("alice")
    driver.find_element(By.NAME, "password").send_keys(password + Keys.ENTER)
    assert not driver.find_element(By.CSS_SELECTOR, "form button").is_enabled()
    assert driver.current_url == page + "/sign-in", driver.current_url


def read(driver, cookie):
    """A signed-in user can read without the script, but not press anything."""
    driver.get(page + "/sign-in")
    driver.add_cookie(cookie)
    driver.get(page + "/profile/authentication")
    text(driver, "renewed", "#tokens")
    assert not any(button.is_enabled() for button in driver.find_elements(By.CSS_SELECTOR, "form[method=post] button:not([type=button])"))


def walk(parts, scripts=True, width=1280):
    """Runs the parts in one browser. If one fails, a screenshot and the traceback are kept."""
    driver = browser(scripts, width)
    try:
        for part in parts:
            try:
                part(driver)
            except BaseException:
                name = getattr(part, "__name__", "read")
                driver.save_screenshot(SHOTS / f"failed-{name}.png")
                (SHOTS / f"failed-{name}.txt").write_text(traceback.format_exc())
                raise
        return driver.get_cookie("permgate") if scripts else None
    finally:
        driver.quit()


def flows():
    for width in WINDOWS:
        cookie = walk([person, counted, keyboard, rotation, profile, session_ends, slow], width=width)
    walk([scriptless, partial(read, cookie=cookie)], scripts=False)
    walk([lured, denied])
    walk(administration.PARTS)


# Reading pages runs beside the flows that change something, because they do not interfere.
with ThreadPoolExecutor(1 if TIMED else 2) as both:
    for done in [both.submit(flows), both.submit(walk, pages.PARTS)]:
        done.result()
for what, figure in FIGURES.items():
    print(f"{what}: {figure}")
print(json.dumps({"done": True}))
