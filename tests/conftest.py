import signal

# Whoever starts the tests in the background has SIGINT ignored, and what they start would inherit
# that: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/V3_chap02.html, 2.11.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
