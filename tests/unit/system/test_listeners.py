"""Listening sockets: bound, adopted, refused with a reason, and cleaned up."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from forkmaster.addresses import DescriptorAddress, TCPAddress, UnixAddress
from forkmaster.errors import BindError
from forkmaster.system import listeners
from forkmaster.system.listeners import (
    SocketFile,
    address_of,
    backlog_limit,
    is_stream,
    open_listener,
    socket_file,
)

from .children import in_child

ANY_PORT = TCPAddress("127.0.0.1", 0)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    # Relative: the path of a temporary folder can be longer than a unix socket allows.
    monkeypatch.chdir(tmp_path)
    return "web.sock"


def is_listening(listener: socket.socket) -> bool:
    return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def test_a_tcp_listener_is_ready_to_be_shared(stack: ExitStack) -> None:
    listener = stack.enter_context(open_listener(ANY_PORT, backlog=5))

    assert is_listening(listener)
    assert not listener.getblocking()
    assert not listener.get_inheritable()
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    assert socket_file(listener) is None
    assert address_of(listener) == TCPAddress("127.0.0.1", listener.getsockname()[1])


def test_a_name_becomes_an_ipv4_address_first(stack: ExitStack) -> None:
    listener = stack.enter_context(open_listener(TCPAddress("localhost", 0), backlog=5))

    assert listener.family == socket.AF_INET


def test_ipv6(stack: ExitStack) -> None:
    try:
        listener = stack.enter_context(open_listener(TCPAddress("::1", 0), backlog=5))
    except BindError as exc:
        pytest.skip(f"no IPv6 here: {exc}")

    assert str(address_of(listener)).startswith("[::1]:")


def test_one_port_can_be_bound_twice_if_asked_for(stack: ExitStack) -> None:
    first = stack.enter_context(open_listener(ANY_PORT, backlog=5, reuse_port=True))

    second = stack.enter_context(open_listener(address_of(first), backlog=5, reuse_port=True))

    assert second.getsockname() == first.getsockname()


def test_a_port_in_use_names_who_uses_it(stack: ExitStack) -> None:
    first = stack.enter_context(open_listener(ANY_PORT, backlog=5))

    with pytest.raises(BindError, match=r"^cannot bind 127.*: Address already in use by pid") as e:
        open_listener(address_of(first), backlog=5)

    assert str(os.getpid()) in str(e.value)
    assert e.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (TCPAddress("192.0.2.1", 80), "cannot bind 192.0.2.1:80: Cannot assign requested address"),
        (TCPAddress("no.such.name.invalid", 80), "cannot bind no.such.name.invalid:80: "),
        (UnixAddress("/missing/x.sock"), "cannot bind unix:/missing/x.sock: No such file or"),
        (UnixAddress("/" + "x" * 200), "AF_UNIX path too long"),
        (DescriptorAddress(9999), "cannot use fd://9999: Bad file descriptor"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_bound_says_why(
    address: TCPAddress | UnixAddress | DescriptorAddress, message: str
) -> None:
    with pytest.raises(BindError) as e:
        open_listener(address, backlog=5)

    assert message in str(e.value)


def test_a_kernel_without_that_family_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoSockets(socket.socket):
        def __init__(self, *arguments: object) -> None:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(socket, "socket", NoSockets)

    with pytest.raises(BindError, match="Address family not supported"):
        open_listener(ANY_PORT, backlog=5)


def test_a_listen_that_fails_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(socket.socket):
        def listen(self, backlog: int = 0) -> None:
            made.append(self)
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    made: list[socket.socket] = []
    monkeypatch.setattr(socket, "socket", Deaf)

    with pytest.raises(BindError, match=r"cannot bind 127.0.0.1:0: Permission denied"):
        open_listener(ANY_PORT, backlog=5)

    assert made[0].fileno() == -1


def test_a_unix_socket_has_the_mode_asked_for(stack: ExitStack, path: str) -> None:
    before = os.umask(0o022)

    stack.enter_context(open_listener(UnixAddress(path), backlog=5, mode=0o660))

    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    assert os.umask(before) == 0o022


def test_a_unix_socket_has_the_umask_of_the_process(stack: ExitStack, path: str) -> None:
    before = os.umask(0o027)

    stack.enter_context(open_listener(UnixAddress(path), backlog=5))

    os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o750


def test_a_unix_socket_is_given_to_its_owner(stack: ExitStack, path: str) -> None:
    owner = (os.geteuid(), os.getegid()) if os.geteuid() else (65534, 65534)

    stack.enter_context(open_listener(UnixAddress(path), backlog=5, owner=owner))

    status = os.stat(path)
    assert (status.st_uid, status.st_gid) == owner


def test_an_owner_that_cannot_be_given_leaves_nothing(public_folder: Path) -> None:
    path = public_folder / "web.sock"

    def child() -> None:
        with pytest.raises(BindError, match=r"web.sock: Operation not permitted"):
            open_listener(UnixAddress(str(path)), backlog=5, owner=(0, 0))

    assert in_child(child, as_nobody=True) == 0

    assert list(public_folder.iterdir()) == []


def test_a_stale_socket_file_is_replaced(stack: ExitStack, path: str) -> None:
    open_listener(UnixAddress(path), backlog=5).close()
    assert os.path.exists(path)

    listener = stack.enter_context(open_listener(UnixAddress(path), backlog=5))

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    assert is_listening(listener)


def test_a_socket_on_which_somebody_answers_is_not_taken(stack: ExitStack, path: str) -> None:
    stack.enter_context(open_listener(UnixAddress(path), backlog=5))
    inode = os.stat(path).st_ino

    with pytest.raises(BindError, match=f"Address already in use by pid {os.getpid()}"):
        open_listener(UnixAddress(path), backlog=5)

    assert os.stat(path).st_ino == inode


def test_a_socket_whose_queue_is_full_is_in_use(stack: ExitStack, path: str) -> None:
    stack.enter_context(open_listener(UnixAddress(path), backlog=0))
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    client.connect(path)

    with pytest.raises(BindError, match="Address already in use"):
        open_listener(UnixAddress(path), backlog=5)


def test_a_file_that_is_no_socket_is_never_removed(path: str) -> None:
    Path(path).write_text("precious")

    with pytest.raises(BindError, match="a file that is not a socket is there"):
        open_listener(UnixAddress(path), backlog=5)

    assert Path(path).read_text() == "precious"


def test_a_link_is_never_followed(stack: ExitStack, path: str) -> None:
    open_listener(UnixAddress("elsewhere"), backlog=5).close()
    os.symlink("elsewhere", path)

    with pytest.raises(BindError, match="not a socket"):
        open_listener(UnixAddress(path), backlog=5)

    assert os.path.exists("elsewhere")


def test_a_socket_of_another_type_is_refused(stack: ExitStack, path: str) -> None:
    stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)).bind(path)

    with pytest.raises(BindError, match="Protocol wrong type for socket"):
        open_listener(UnixAddress(path), backlog=5)


def test_a_stale_file_that_may_not_be_removed_says_so(public_folder: Path) -> None:
    address = UnixAddress(str(public_folder / "web.sock"))
    open_listener(address, backlog=5, mode=0o666).close()
    public_folder.chmod(0o555)

    def child() -> None:
        with pytest.raises(BindError, match=r"web.sock: Permission denied"):
            open_listener(address, backlog=5)

    assert in_child(child, as_nobody=True) == 0


def test_an_abstract_socket_has_no_file(stack: ExitStack) -> None:
    address = UnixAddress(f"\0forkmaster-test-{os.getpid()}")

    listener = stack.enter_context(open_listener(address, backlog=5, owner=(0, 0)))

    assert socket_file(listener) is None
    assert address_of(listener) == address


def test_our_socket_file_is_removed_from_whatever_folder_we_are_in(
    stack: ExitStack, path: str, tmp_path: Path
) -> None:
    file = socket_file(stack.enter_context(open_listener(UnixAddress(path), backlog=5)))
    assert file is not None

    os.chdir("/")

    assert file.remove()
    assert list(tmp_path.iterdir()) == []
    assert not file.remove()


def test_the_socket_file_of_another_server_is_left(stack: ExitStack, path: str) -> None:
    listener = open_listener(UnixAddress(path), backlog=5)
    file = socket_file(listener)
    assert file is not None
    os.rename(path, "old")  # as a deploy does, so that the inode is not given again
    stack.enter_context(open_listener(UnixAddress(path), backlog=5))

    assert not file.remove()

    assert os.path.exists(path)
    listener.close()


def test_a_socket_file_is_plain_data_that_an_upgrade_can_carry() -> None:
    assert SocketFile(Path("/x"), 1, 2) == SocketFile(Path("/x"), 1, 2)


def test_a_descriptor_is_adopted_as_it_is(stack: ExitStack) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    given.set_inheritable(True)

    listener = stack.enter_context(open_listener(DescriptorAddress(given.detach()), backlog=5))

    assert is_listening(listener)
    assert listener.family == socket.AF_INET
    assert not listener.getblocking()
    assert not listener.get_inheritable()
    # Else the second piece of an answer waits 40 ms for the acknowledgement of the first.
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_only_a_stream_socket_can_be_listened_on(stack: ExitStack) -> None:
    stream = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    datagram = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    read_fd, write_fd = os.pipe()
    os.close(write_fd)

    found = [is_stream(fd) for fd in (stream.fileno(), datagram.fileno(), read_fd, write_fd)]

    assert found == [True, False, False, False]
    os.close(read_fd)


def test_a_descriptor_that_is_only_bound_is_listened_on(stack: ExitStack) -> None:
    given = socket.socket()
    given.bind(("127.0.0.1", 0))

    listener = stack.enter_context(open_listener(DescriptorAddress(given.detach()), backlog=5))

    assert is_listening(listener)


def test_a_descriptor_that_is_no_listener_is_refused_and_left_open(stack: ExitStack) -> None:
    read_fd, write_fd = os.pipe()
    datagram = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    one, other = socket.socketpair()
    stack.enter_context(one)
    stack.enter_context(other)

    for fd, why in (
        (read_fd, "Socket operation on non-socket"),
        (datagram.fileno(), "not a stream socket"),
        (one.fileno(), "Invalid argument"),
    ):
        with pytest.raises(BindError, match=f"cannot use fd://{fd}: {why}"):
            open_listener(DescriptorAddress(fd), backlog=5)
        os.fstat(fd)
    os.close(read_fd)
    os.close(write_fd)


def test_the_kernels_limit_for_backlogs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = backlog_limit()
    assert limit is None or limit > 0

    monkeypatch.setattr(listeners, "Path", lambda name: tmp_path / "missing")

    assert backlog_limit() is None
