# shellcheck shell=bash
# Installs Debian packages without starting their services, because we run the servers on ports of our own, and Python wheels
# into separate folders.

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# debian_install PACKAGE…: installs the packages, or says how to install them without root.
debian_install() {
    if ! command -v apt-get >/dev/null; then
        die "Missing: $*. This machine has no apt-get. Install the packages by hand (their services need not run), then run this again."
    fi
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null; then
        die "Missing: $*. Run: sudo apt-get install --no-install-recommends $* (the services need not run), then run this again."
    fi
    say "Installing $* with apt."
    as_root bash "$NATIVE/debian-install-quietly" "$@"
}

# pip_install FOLDER PACKAGE==VERSION: installs into a folder, independent of any virtual environment.
pip_install() {
    python3 -m pip --version >/dev/null 2>&1 || debian_install python3-pip
    python3 -m pip install --quiet --disable-pip-version-check --no-cache-dir --root-user-action ignore --target "$1" "$2" || {
        rm -rf "$1"
        die "pip could not install $2. Its error is above; check the network, then run this again."
    }
}
