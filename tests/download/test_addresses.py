"""URLs of strangers' lists: what they lead to, or the reason why nobody is asked; never an exception."""

import ipaddress
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.download.addresses import RefusedURLError, host_of, is_public, parse_url, refuse_private, resolve_redirect
from dataprep.reasons import Reason

BAD = {
    "": "no scheme",
    "a.jpg": "no scheme",
    "//x.net/a.jpg": "no scheme",
    "x.net/a.jpg": "no scheme",
    "ftp://x.net/a.jpg": "scheme 'ftp'",
    "data:image/png;base64,AAAA": "scheme 'data'",
    "file:///etc/passwd": "scheme 'file'",
    "javascript:alert(1)": "scheme 'javascript'",
    "http:/x.net/a.jpg": "no host",
    "http:x.net": "no host",
    "http:///a.jpg": "no host",
    "http://": "no host",
    "http://./a": "no host",
    "http://user:secret@x.net/a.jpg": "user name",
    "http://a@127.0.0.1/": "user name",
    "http://x.net:80@evil.net/": "user name",
    "http://x.net:99999/a.jpg": "port",
    "http://x.net:8o/a.jpg": "port",
    "http://x.net:-1/": "port",
    "http://x.net:\u0668\u0660/": "port",
    "http://x.net:25/": "port 25",
    "http://x.net:0/": "port 0",
    "http://[::1/a.jpg": "IPv6",
    "http://[fe80::1%25eth0]/": "IPv6",
    "http://[fe80::1%eth0]/": "IPv6",
    "http://[1.2.3.4]/": "IPv6",
    "http://[::1]x/": "IPv6",
    "http://x.net\\@evil.net/a.jpg": "user name",
    "http://x.net\\a.jpg": "domain name",
    "http://%31%32%37.0.0.1/": "domain name",
    "http://a b.net/": "domain name",
    "http://a..net/": "domain name",
    "http://x.net../": "domain name",
    "http://" + "a" * 64 + ".com/a.jpg": "domain name",
    "http://" + ".".join(["a" * 60] * 5) + "/": "domain name",
    "http://1.2.3.4.5/": "not an address",
    "http://x.256/": "not an address",
    "http://0x1ffffffff/": "not an address",
    "http://x.net/a\0b.jpg": "control characters",
    "http://x.net/a\nb.jpg": "control characters",
    "http://x.net/" + "a" * 100_000: "100013 characters",
    "http://\ud800.net/": "domain name",
}
GOOD = {
    "http://x.net/a%252Bb c?q=%20é#f": "http://x.net/a%252Bb%20c?q=%20%C3%A9",
    " \tHTTP://X.Net:80 \n": "http://x.net/",
    "https://x.net?q": "https://x.net/?q",
    "http://x.net./a": "http://x.net/a",
    "http://foo_bar.x.net/": "http://foo_bar.x.net/",
    "http://bücher.example/ü.jpg": "http://xn--bcher-kva.example/%C3%BC.jpg",
    "http://x.net/a\\b|c[1].jpg": "http://x.net/a%5Cb|c[1].jpg",
    "http://x.net/../a/./b": "http://x.net/../a/./b",
    "http://x.net/photo.jpg?u=http://y.net/@z": "http://x.net/photo.jpg?u=http://y.net/@z",
    "http://[2001:DB8:0::1]:8080/": "http://[2001:db8::1]:8080/",
    "http://2130706433/": "http://127.0.0.1/",
    "http://0x7f.1/": "http://127.0.0.1/",
    "http://0177.0.0.1/": "http://127.0.0.1/",
    "http://127.1/": "http://127.0.0.1/",
    "http://１２７.0.0.1/": "http://127.0.0.1/",
}


@pytest.mark.parametrize("url", BAD, ids=lambda url: ascii(url)[:40])
def test_bad_urls_have_a_reason(url: str) -> None:
    with pytest.raises(RefusedURLError) as refused:
        parse_url(url)
    assert refused.value.reason is Reason.BAD_URL
    assert BAD[url] in refused.value.detail


@pytest.mark.parametrize("url", GOOD)
def test_sloppy_urls_are_read_as_a_browser_reads_them(url: str) -> None:
    assert str(parse_url(url)) == GOOD[url]


@pytest.mark.parametrize(
    "url", ["http://localhost/", "http://a.localhost/", "http://127.1/", "http://[::1]/", "http://[::ffff:10.0.0.1]/"]
)
def test_private_literals_are_refused_before_anybody_resolves_them(url: str) -> None:
    with pytest.raises(RefusedURLError) as refused:
        refuse_private(parse_url(url))
    assert refused.value.reason is Reason.FORBIDDEN_ADDRESS


@pytest.mark.parametrize(
    ("location", "leads_to"),
    [
        ("/b", "http://x.net/b"),
        ("//y.net/b", "http://y.net/b"),
        ("c d?e", "http://x.net/a/c%20d?e"),
        ("/\udce9.jpg", "http://x.net/%E9.jpg"),  # a Latin-1 byte, as aiohttp hands it over
        ("file:///etc/passwd", None),
        ("javascript:alert(1)", None),
        ("http://[::1/", None),
        ("\\\\evil.net", "http://x.net/a/%5C%5Cevil.net"),
    ],
)
def test_redirects_are_read_like_urls(location: str, leads_to: str | None) -> None:
    if leads_to is None:
        with pytest.raises(RefusedURLError):
            resolve_redirect(parse_url("http://x.net/a/b"), location)
    else:
        assert str(resolve_redirect(parse_url("http://x.net/a/b"), location)) == leads_to


ANYTHING = st.one_of(
    st.text(),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["http://", "https://", "http:/", "HTTP:\\\\", "//", "http://a@", "http://[", "ftp://"]),
        st.text(alphabet=st.characters(codec=None), max_size=30),
        st.sampled_from(["", ":80", ":0", ":x", "]", ".", "/", "?", "#", "@x", "\\"]),
        st.text(max_size=30),
    ),
)


@given(ANYTHING, ANYTHING)
@settings(max_examples=600, deadline=None)
def test_any_text_is_a_url_that_can_be_sent_or_has_a_reason(text: str, location: str) -> None:
    for read in (lambda: parse_url(text), lambda: resolve_redirect(parse_url("http://x.net/a/b"), location)):
        try:
            url = read()
        except RefusedURLError:
            continue
        sent = str(url)
        assert sent.isascii()
        assert not set(sent) & set(" \t\r\n\0\x7f")
        parts = urllib.parse.urlsplit(sent)  # another reader sees the same host
        assert parts.scheme in ("http", "https")
        assert "@" not in parts.netloc
        assert parts.hostname == (url.raw_host or "").lower()
        assert host_of(url) == f"{url.raw_host}:{url.port}"
        assert str(parse_url(sent)) == sent


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:10.0.0.1", "::10.0.0.1", "fe80::1%eth0",
                "169.254.169.254", "100.64.0.1", "224.0.0.1", "0.0.0.0", "192.0.2.1", "::ffff:0:127.0.0.1",
                "64:ff9b:1::7f00:1", "fec0::1", "3fff::1", "ff0e::1", "168.63.129.16", "2002:a83f:8110::", "192.0.0.192"]
)  # fmt: skip
def test_private_addresses_are_private_in_every_guise(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_written_as_a_number_is_the_same_address(address: ipaddress.IPv4Address) -> None:
    assert parse_url(f"http://{int(address)}/").raw_host == str(address)
