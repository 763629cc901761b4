"""What a sandbox can reach, asked from inside it, as root. `serve` answers on TCP and UDP port 7777; `ask` reads a JSON
list of questions from standard input and prints the answers as a JSON object: what came back within the seconds `wait` of
the question, or null."""

import json
import os
import socket
import struct
import sys
import threading
import time

PORT = 7777
TRIES = 3
CARD = "eth0"


def serve():
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("", PORT))

    def echo():
        while True:
            data, peer = udp.recvfrom(2048)
            udp.sendto(b"udp", peer)

    threading.Thread(target=echo, daemon=True).start()
    tcp = socket.create_server(("", PORT))
    while True:
        connection, _ = tcp.accept()
        connection.sendall(b"tcp")
        connection.close()


def ask_tcp(address, wait, port=PORT, **_):
    with socket.create_connection((address, port), wait) as connection:
        connection.settimeout(wait)
        return connection.recv(64).decode() or None


def ask_udp(address, wait, port=PORT, source="", from_port=0, text="hello", **_):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind((source, from_port))
        udp.settimeout(wait / TRIES)
        udp.connect((address, port))
        for _ in range(TRIES):
            try:
                udp.send(text.encode())
                return udp.recv(64).decode()
            except (TimeoutError, ConnectionError, PermissionError, OSError):
                time.sleep(0.1)
        return None


def ask_hear(wait, from_port, **_):
    """What still comes to a port from somebody who is not asked any more."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("", from_port))
        udp.settimeout(wait)
        return udp.recv(64).decode()


def ask_shout(address, wait, port=PORT, **_):
    """To everybody at once; whoever else answers is heard."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, CARD.encode())
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        udp.sendto(b"shout", (address, port))
        end = time.monotonic() + wait
        while (left := end - time.monotonic()) > 0:
            udp.settimeout(left)
            _, (peer, _) = udp.recvfrom(64)
            # A broadcast comes back to who has sent it.
            if peer != own_address():
                return peer
        return None


def own_address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.connect(("192.88.99.1", 9))
        return udp.getsockname()[0]


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ask_icmp(address, wait, **_):
    mark = os.urandom(8)
    packet = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + mark
    packet = packet[:2] + struct.pack("!H", checksum(packet)) + packet[4:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        for _ in range(TRIES):
            raw.sendto(packet, (address, 0))
            end = time.monotonic() + wait / TRIES
            while (left := end - time.monotonic()) > 0:
                raw.settimeout(left)
                try:
                    data, (peer, _) = raw.recvfrom(2048)
                except TimeoutError:
                    break
                if peer == address and data[20] == 0 and data.endswith(mark):
                    return "icmp"
    return None


def own():
    with open(f"/sys/class/net/{CARD}/address") as file:
        return bytes.fromhex(file.read().strip().replace(":", ""))


def exchange(frame, protocol, wait, is_answer):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol)) as raw:
        raw.bind((CARD, protocol))
        for _ in range(TRIES):
            raw.send(frame)
            end = time.monotonic() + wait / TRIES
            while (left := end - time.monotonic()) > 0:
                raw.settimeout(left)
                try:
                    data = raw.recv(2048)
                except TimeoutError:
                    break
                if (answer := is_answer(data)) is not None:
                    return answer
    return None


def ask_arp(address, wait, source, mac=None, **_):
    sender = bytes.fromhex(mac.replace(":", "")) if mac else own()
    frame = b"\xff" * 6 + sender + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1)
    frame += sender + socket.inet_aton(source) + bytes(6) + socket.inet_aton(address)

    def is_answer(data):
        # Answers to other questions of this card come by here too.
        is_ours = data[32:38] == sender and data[38:42] == socket.inet_aton(source)
        if data[20:22] == b"\0\2" and data[28:32] == socket.inet_aton(address) and is_ours:
            return data[22:28].hex(":")
        return None

    return exchange(frame, 0x0806, wait, is_answer)


def ask_syn(address, wait, source, port, gateway_mac, **_):
    """A TCP SYN to an address that the guest's own kernel would keep for itself, such as loopback."""
    ends = socket.inet_aton(source) + socket.inet_aton(address)
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + ends
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    tcp = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, 2, 1024, 0, 0)
    total = checksum(ends + struct.pack("!HH", 6, len(tcp)) + tcp)
    tcp = tcp[:16] + struct.pack("!H", total) + tcp[18:]
    frame = bytes.fromhex(gateway_mac.replace(":", "")) + own() + b"\x08\0" + ip + tcp

    def is_answer(data):
        is_from = data[26:30] == socket.inet_aton(address) and data[23] == 6
        return "open" if is_from and data[47] & 0x12 == 0x12 else None

    return exchange(frame, 0x0800, wait, is_answer)


def ask_ip6(address, wait, gateway_mac, **_):
    """An ICMPv6 echo request from a link-local address, to everybody or to one."""
    source = bytes.fromhex("fe80000000000000") + b"\0\0\0\xff\xfe\0\0\x01"
    target = socket.inet_pton(socket.AF_INET6, address)
    icmp = struct.pack("!BBHHH", 128, 0, 0, 7, 1) + b"ping"
    pseudo = source + target + struct.pack("!II", len(icmp), 58)
    icmp = icmp[:2] + struct.pack("!H", checksum(pseudo + icmp)) + icmp[4:]
    ip = struct.pack("!IHBB", 6 << 28, len(icmp), 58, 64) + source + target
    to = b"\x33\x33" + target[12:] if target[0] == 0xFF else bytes.fromhex(gateway_mac.replace(":", ""))
    frame = to + own() + b"\x86\xdd" + ip + icmp
    return exchange(frame, 0x86DD, wait, lambda data: "answer" if data[6:12] != own() else None)


def ask_dhcp(wait, **_):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, CARD.encode())
        udp.bind(("", 68))
        udp.settimeout(wait)
        discover = b"\1\1\6\0" + os.urandom(4) + bytes(20) + own() + bytes(202) + b"\x63\x82\x53\x63\x35\1\1\xff"
        udp.sendto(discover, ("255.255.255.255", 67))
        return "offer" if udp.recv(2048) else None


def ask_name(name, **_):
    try:
        return socket.gethostbyname(name)
    except OSError:
        return None


def ask():
    questions = json.load(sys.stdin)
    answers = {}

    def run(question):
        try:
            answer = globals()[f"ask_{question['how']}"](**question)
        except OSError:
            answer = None
        answers[question["id"]] = answer

    threads = [threading.Thread(target=run, args=(question,)) for question in questions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(answers))


serve() if sys.argv[1] == "serve" else ask()
