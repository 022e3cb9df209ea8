"""WIRE-20, and the values of sections 10 and 11: data records, deliveries, broadcasts."""

from .primitives import Reader, Refused, varint

ACK_NOW, FRAGMENT, REDELIVERED = 1, 2, 4
OUTCOMES = {0: "done", 1: "fenced", 2: "results closed", 3: "no results", 16: "was fenced"}


def read_trailer(record):
    """WIRE-20: what a data record says of itself, and its body."""
    if len(record) < 9 or record[-1] > 7:
        raise Refused("no trailer")
    flags = record[-1]
    head = {"seq": int.from_bytes(record[-9:-1], "big")}
    head |= {"ack_now": flags & ACK_NOW != 0, "redelivered": flags & REDELIVERED != 0}
    if not flags & FRAGMENT:
        return head, record[:-9]
    if len(record) < 17:
        raise Refused("truncated")
    body = record[:-17]
    head["total"], head["offset"] = int.from_bytes(record[-17:-13], "big"), int.from_bytes(record[-13:-9], "big")
    if head["offset"] + len(body) > head["total"] or (not body and head["total"]):
        raise Refused("a fragment outside its value")
    return head, body


def write_trailer(head):
    flags = ACK_NOW * head["ack_now"] + FRAGMENT * ("total" in head) + REDELIVERED * head["redelivered"]
    place = head["total"].to_bytes(4, "big") + head["offset"].to_bytes(4, "big") if "total" in head else b""
    return place + head["seq"].to_bytes(8, "big") + bytes([flags])


def read_items(body):
    reader, items = Reader(body), []
    while reader.rest:
        items.append(reader.bytes(reader.varint()))
    return items


def write_items(items):
    return b"".join(varint(len(item)) + item for item in items)


def read_record(record):
    head, body = read_trailer(record)
    return head | ({"part": body} if "total" in head else {"items": read_items(body)})


def write_record(record):
    body = record["part"] if "total" in record else write_items(record["items"])
    return body + write_trailer(record)


def read_ask(data):
    """DEL-10."""
    r = Reader(data)
    token, kind, number = r.varint(), r.u8(), r.varint()
    ask = {"token": token, "number": number}
    match kind:
        case 0:
            ask["ask"] = "done"
        case 1:
            ask |= {"ask": "back", "delay": r.varint()}
        case 2:
            ask |= {"ask": "extend", "millis": r.varint()}
        case 3:
            return ask | {"ask": "result", "results": r.varint(32), "value": r.rest}
        case _:
            raise Refused("ask")
    r.end()
    return ask


def write_ask(ask):
    kind = ["done", "back", "extend", "result"].index(ask["ask"])
    out = varint(ask["token"]) + bytes([kind]) + varint(ask["number"])
    out += b"".join(varint(ask[field]) for field in ("delay", "millis", "results") if field in ask)
    return out + ask.get("value", b"")


def read_outcome(data):
    """DEL-11."""
    r = Reader(data)
    kind, number = r.u8(), r.varint()
    r.end()
    if kind not in OUTCOMES:
        raise Refused("outcome")
    return {"outcome": OUTCOMES[kind], "number" if kind == 16 else "token": number}


def write_outcome(outcome):
    kind = next(kind for kind, name in OUTCOMES.items() if name == outcome["outcome"])
    return bytes([kind]) + varint(outcome["number" if kind == 16 else "token"])


def read_delivery(data):
    """DEL-12."""
    r = Reader(data)
    word = r.varint()
    if word >> 33:
        raise Refused("attempts")
    return {"attempts": word >> 1, "redelivered": word & 1 == 1, "value": r.rest}


def write_delivery(delivery):
    return varint(delivery["attempts"] * 2 + delivery["redelivered"]) + delivery["value"]


def read_broadcast(data):
    """CAST-8."""
    r = Reader(data)
    kind = r.u8()
    if kind == 0:
        return {"value": r.rest}
    if kind != 1:
        raise Refused("broadcast")
    lost = r.varint()
    r.end()
    return {"lost": lost}


def write_broadcast(item):
    return b"\0" + item["value"] if "value" in item else b"\1" + varint(item["lost"])
