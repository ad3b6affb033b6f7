# shellcheck shell=bash
# Installs Debian packages without starting what they bring (the ports that they would take are not ours), and Python
# wheels into a folder of their own.

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# debian_install PACKAGE…
debian_install() {
    if ! command -v apt-get >/dev/null; then
        die "Missing: $*. This machine has no apt-get: install it by hand (no service has to run), then run this again."
    fi
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
        die "Missing: $*. Run: sudo apt-get install --no-install-recommends $*   (its service need not run), then run this again."
    fi
    say "Installing $* with apt"
    as_root bash "$NATIVE/debian-install-quietly" "$@"
}

# pip_install FOLDER PACKAGE==VERSION: needs no virtual environment, changes none.
pip_install() {
    python3 -m pip --version >/dev/null 2>&1 || debian_install python3-pip
    python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir --root-user-action ignore --target "$1" "$2" || {
        rm -rf "$1"
        die "pip could not install $2"
    }
}
