#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
# A process of its own for tests, on a library under the GPL; no part of weir is made from it.
"""Simulated DLMS/COSEM meter on PyPI gurux-dlms only (GPL-2.0, run as a separate test process).

  dlms_meter.py [--wrapper PORT] [--hdlc PORT] [--tty PATH]          prints "ready" when it listens

Associations (selected by client SAP): 16 none, 17 LLS "Gurux", 18 HLS(2) "Gurux",
1 HLS-GMAC + authenticated encryption (suite 0).
Keys: EK 000102..0F, AK D0D1..DF, server system title "GRX" 00 00 00 00 01.
The PyPI server class has never been run by its authors in this version (several NameErrors);
the overrides below are what is needed to make it work.
"""
import argparse, datetime, os, pty, select, socket, sys, threading, traceback, tty
from gurux_dlms.secure import GXDLMSSecureServer
from gurux_dlms import GXByteBuffer, GXServerReply, GXDateTime, GXUInt16, GXUInt32
from gurux_dlms.enums import (InterfaceType, Authentication, SourceDiagnostic, ObjectType, AccessMode,
                              MethodAccessMode, Unit, DataType, Conformance, Security, ErrorCode)
from gurux_dlms.objects import (GXDLMSData, GXDLMSRegister, GXDLMSClock, GXDLMSProfileGeneric,
                                GXDLMSAssociationLogicalName, GXDLMSCaptureObject, GXDLMSDisconnectControl,
                                GXDLMSExtendedRegister, GXDLMSDemandRegister, GXDLMSImageTransfer,
                                GXDLMSLimiter, GXDLMSRegisterMonitor, GXDLMSPushSetup, GXDLMSMBusClient)
from gurux_dlms.GXDLMS import GXDLMS
from gurux_dlms._HDLCInfo import _HDLCInfo

VERBOSE = os.environ.get("METER_TRACE")

# ---- repairs of the upstream (machine-ported, never exercised) server half -------------------
from gurux_dlms import GXDLMSLongTransaction as _lt_mod
from gurux_dlms.GXDLMSLongTransaction import GXDLMSLongTransaction as LT
from gurux_dlms.GXDLMSSettings import GXDLMSSettings as S
from gurux_dlms.ValueEventArgs import ValueEventArgs as VEA
LT.setData = lambda self, d: setattr(self, "data", d)
S.getCount = lambda self: self.count
S.getMaxPduSize = lambda self: self.maxPduSize
S.setConnected = lambda self, v: setattr(self, "connected", v)
S.gbtWndowSize = property(lambda self: self.gbtWindowSize)
VEA.isSkipMaxPduSize = True
VEA.__iter__ = lambda self: iter([self])
from gurux_dlms.GXHdlcSettings import GXHdlcSettings
GXHdlcSettings.update = lambda self, o: None
from gurux_dlms._GXAPDU import _GXAPDU
from gurux_dlms.GXSecure import GXSecure
from gurux_dlms.enums import Command
from gurux_dlms.internal._GXCommon import _GXCommon
from gurux_dlms.objects.enums import AssociationStatus

def _aare(settings, data, result, diagnostic, cipher, errorData, encryptedData):
    """Corrected AARE encoder (upstream writes a wrong length for the server system title)."""
    b = GXByteBuffer(); ciphered = bool(cipher and cipher.isCiphered())
    def tlv(tag, body): b.setUInt8(tag); b.setUInt8(len(body)); b.set(bytes(body))
    tlv(0xA1, bytes([6, 7, 0x60, 0x85, 0x74, 5, 8, 1, (3 if ciphered else 1) + (1 if SN else 0)]))
    tlv(0xA2, bytes([2, 1, int(result)]))
    tlv(0xA3, bytes([0xA1, 3, 2, 1, int(diagnostic)]))
    if cipher and (settings.authentication >= Authentication.HIGH_GMAC or ciphered):
        tlv(0xA4, bytes([4, len(cipher.systemTitle)]) + bytes(cipher.systemTitle))
    if settings.authentication > Authentication.LOW:
        tlv(0x88, b"\x07\x80")
        tlv(0x89, bytes([0x60, 0x85, 0x74, 5, 8, 2, int(settings.authentication)]))
        c = bytes(settings.stoCChallenge); tlv(0xAA, bytes([0x80, len(c)]) + c)
    u = bytes(errorData.array()) if errorData else bytes(_GXAPDU.getUserInformation(settings, cipher))
    if ciphered: cipher.invocationCounter += 1
    tlv(0xBE, bytes([4, len(u)]) + u)
    data.setUInt8(0x61); _GXCommon.setObjectCount(len(b), data); data.set(b)
_GXAPDU.generateAARE = staticmethod(_aare)

def _secret(st, client_side):
    a = st.authentication; pw = b"Gurux"
    cl, sv = bytes(st.sourceSystemTitle or b""), bytes(st.cipher.systemTitle)
    S, C = bytes(st.stoCChallenge), bytes(st.ctoSChallenge)
    if a == Authentication.HIGH_GMAC: return cl if client_side else sv
    if a == Authentication.HIGH_SHA256: return pw + (cl + sv + S + C if client_side else sv + cl + C + S)
    return pw
def _invoke(self, settings, e):
    if e.index != 1: e.error = ErrorCode.READ_WRITE_DENIED; return None
    if settings.authentication == Authentication.HIGH_GMAC:
        log("GMAC %s %d" % (bytes(settings.sourceSystemTitle or b"").hex(), int.from_bytes(bytes(e.parameters)[1:5], "big")))
    got = bytes(e.parameters); ic = int.from_bytes(got[1:5], "big") if settings.authentication == Authentication.HIGH_GMAC else 0
    want = bytes(GXSecure.secure(settings, settings.cipher, ic, settings.stoCChallenge, _secret(settings, True)))
    if got != want:
        self.associationStatus = AssociationStatus.NON_ASSOCIATED; e.error = ErrorCode.OTHER_REASON; return None
    self.associationStatus = AssociationStatus.ASSOCIATED
    r = bytearray(GXSecure.secure(settings, settings.cipher, settings.cipher.invocationCounter, settings.ctoSChallenge, _secret(settings, False)))
    settings.cipher.invocationCounter += 1
    return r
GXDLMSAssociationLogicalName.invoke = _invoke

from gurux_dlms.AesGcmParameter import AesGcmParameter
from gurux_dlms.GXCiphering import GXCiphering
from gurux_dlms.enums import RequestTypes
def _glo(settings, data):                    # upstream forgets the tag argument
    if (data.moreData & RequestTypes.FRAME) != 0:
        data.data.position -= 1; return
    data.data.position -= 1
    ded = settings.cipher.dedicatedKey and (settings.connected & 2)
    p = AesGcmParameter(0, settings.sourceSystemTitle,
                        settings.cipher.dedicatedKey if ded else settings.cipher.blockCipherKey,
                        settings.cipher.authenticationKey)
    tmp = GXCiphering.decrypt(settings, p, data.data)
    data.data.clear(); data.data.set(tmp)
    data.command = Command(data.data.getUInt8())
GXDLMS.handleGloDedRequest = staticmethod(_glo)
GXCiphering.reset = lambda self: setattr(self, "security", Security.NONE)    # upstream also zeroes the counter
_aln = GXDLMSAssociationLogicalName

# ---- what tests want to see and to have refused ---------------------------------------------
# METER_LOG=FILE: a line for each AARQ and for each invocation counter that was deciphered.
# METER_STRICT=N: counters must rise above N, then above the last one; others are answered D8 01 06 <next>,
# or with METER_STALE=silent not at all, or with METER_STALE=plain by D8 01 06 alone.
# METER_BLIND=1: 0.0.43.1.0.255 is no object of this meter.
LAST = {"ic": int(os.environ.get("METER_STRICT", "-1"))}
STRICT = "METER_STRICT" in os.environ
class Stale(BaseException): pass              # upstream swallows every Exception
def log(line):
    if os.environ.get("METER_LOG"):
        with open(os.environ["METER_LOG"], "a") as f: f.write(line + "\n")
_decipher = GXCiphering.decrypt.__func__
def _counted(cls, settings, p, data):
    tmp = _decipher(cls, settings, p, data)
    if STRICT and p.invocationCounter <= LAST["ic"]:
        log("STALE %s %d" % (bytes(p.systemTitle).hex(), p.invocationCounter))
        raise Stale()
    log("IC %s %d" % (bytes(p.systemTitle).hex(), p.invocationCounter))
    if STRICT: LAST["ic"] = p.invocationCounter
    return tmp
GXCiphering.decrypt = classmethod(_counted)
if os.environ.get("METER_SUITE") == "2":     # upstream forgets the suite in the initiate-response
    from gurux_dlms.objects.enums import SecuritySuite
    _parameter = AesGcmParameter.__init__
    def _suited(self, *a): _parameter(self, *a); self.securitySuite = SecuritySuite(2)
    AesGcmParameter.__init__ = _suited
def stale(data):                             # over the wrapper only
    if os.environ.get("METER_STALE") == "silent": return b""
    body = b"\xD8\x01\x06"
    if os.environ.get("METER_STALE") != "plain": body += (LAST["ic"] + 1).to_bytes(4, "big")
    return data[0:2] + data[4:6] + data[2:4] + len(body).to_bytes(2, "big") + body
_aln.getAssociationStatus = lambda self: self.associationStatus

if VERBOSE:
    _gd = GXDLMS.getData.__func__
    def _getData(cls, *a):
        try: return _gd(cls, *a)
        except Exception: traceback.print_exc(); raise
    GXDLMS.getData = classmethod(_getData)

from gurux_dlms.objects import GXDLMSProfileGeneric as PG
_pg_get = PG.getValue
def _dt(o):                                  # octet-string date-time -> naive datetime (wildcards -> 0)
    b = bytes(o); return datetime.datetime(b[0] << 8 | b[1], b[2], b[3], b[5], b[6], 0 if b[7] == 255 else b[7])
def _pgv(self, settings, e):                 # attribute 2 incl. selective access (upstream: broken)
    if e.index != 2: return _pg_get(self, settings, e)
    rows, c0, c1 = self.buffer, 0, None
    if e.selector == 1:
        f, t = _dt(e.parameters[1]), _dt(e.parameters[2])
        rows = [r for r in rows if f <= r[0].value.replace(tzinfo=None) <= t]
    elif e.selector == 2:
        a, b = e.parameters[0], e.parameters[1]; rows = rows[a - 1:(b or len(rows))]   # from_entry..to_entry, 1-based
        c0 = (e.parameters[2] or 1) - 1; c1 = e.parameters[3] or None
    out = GXByteBuffer(); out.setUInt8(DataType.ARRAY); _GXCommon.setObjectCount(len(rows), out)
    for r in rows:
        r = r[c0:c1]; out.setUInt8(DataType.STRUCTURE); out.setUInt8(len(r))
        for v in r:
            if isinstance(v, GXDateTime): _GXCommon.setData(settings, out, DataType.OCTET_STRING, v)
            else: _GXCommon.setData(settings, out, DataType.UINT32, v)
    e.byteArray = True; settings.index = settings.count = 0
    return out.array()
PG.getValue = _pgv

# Upstream answers with the number of the first request ever, misses setters, and codes no reason behind a refusal in a list.
_upd = S.updateInvokeId
def _update(self, value): _upd(self, value); self.invokeId = value & 0xF
S.updateInvokeId = _update
from gurux_dlms.GXDLMSLNParameters import GXDLMSLNParameters as LNP
LNP.setStatus = lambda self, v: setattr(self, "status", v)
LNP.isMultipleBlocks = lambda self: self.multipleBlocks
VEA.setValue = lambda self, v: setattr(self, "value", v)
LT.getTargets = lambda self: self.targets
from gurux_dlms.GXDLMSLNCommandHandler import GXDLMSLNCommandHandler as LNH
def _with_list(cls, settings, invokeID, server, data, replyData, xml):
    out = GXByteBuffer(); n = _GXCommon.getObjectCount(data); _GXCommon.setObjectCount(n, out); args = []
    for _ in range(n):
        ci = ObjectType(data.getUInt16()); ln = bytearray(6); data.get(ln); index = data.getUInt8(); data.getUInt8()
        obj = settings.objects.findByLN(ci, _GXCommon.toLogicalName(ln))
        if obj is None: out.setUInt8(1); out.setUInt8(int(ErrorCode.UNDEFINED_OBJECT)); continue
        a = VEA(server, obj, index, 0, None); a.invokeId = invokeID; args.append(a)
        mark = len(out); value = obj.getValue(settings, a)
        if a.error: out.setUInt8(1); out.setUInt8(int(a.error)); continue
        out.setUInt8(0)
        if a.byteArray: out.set(value)
        else: GXDLMS.appendData(settings, obj, index, out, value)
    GXDLMS.getLNPdu(LNP(settings, invokeID, Command.GET_RESPONSE, 3, None, out, 0xFF), replyData)
    if len(out) != out.position: server.setTransaction(LT(args, Command.GET_REQUEST, out))
LNH.getRequestWithList = classmethod(_with_list)
from gurux_dlms.objects.enums import ControlState
def _dc(self, settings, e):                  # upstream has no methods of a disconnect control
    if e.index not in (1, 2): e.error = ErrorCode.READ_WRITE_DENIED; return None
    self.outputState = e.index == 2; self.controlState = ControlState.CONNECTED if e.index == 2 else ControlState.DISCONNECTED
GXDLMSDisconnectControl.invoke = _dc

# METER_KEEP=1: what it holds outlives a connection. METER_KILL=N: after N blocks of an image the connection is gone, once.
# METER_RESTART=shows|forgets: it restarts when it is to run an image, without an answer; then it shows the image, or nothing
# but other firmware. METER_BLOCK=N: the size of the blocks. METER_MORE=1: a push setup, a limiter, an M-Bus client.
# METER_LISTS=other: it calls an image by the image's own name. METER_STAYS=1: it never activates. METER_STUCK=N: it never has block N.
class Gone(BaseException): pass
KILL = [int(os.environ.get("METER_KILL", "0"))]
RESTART = os.environ.get("METER_RESTART"); STUCK = int(os.environ.get("METER_STUCK", "-1"))
import gurux_dlms.objects as _o
from gurux_dlms.objects import GXDLMSImageActivateInfo
from gurux_dlms.objects.enums import ImageTransferStatus as ITS
def _img(self, settings, e):                 # upstream's methods are Java
    p = e.parameters
    if e.index == 1: self.called = bytes(p[0]); self.got = {}; self.imageSize = p[1]; self.imageFirstNotTransferredBlockNumber = 0; self.imageTransferStatus = ITS.IMAGE_TRANSFER_INITIATED; log("INITIATE")
    elif e.index == 2:
        self.got[p[0]] = bytes(p[1]); n = 0; log("BLOCK %d" % p[0])
        while n in self.got and n != STUCK: n += 1
        self.imageFirstNotTransferredBlockNumber = n
        if KILL[0]:
            KILL[0] -= 1
            if not KILL[0]: raise Gone()
    elif e.index == 3:
        whole = b"".join(self.got[n] for n in sorted(self.got)); log("VERIFY")
        self.imageTransferStatus = ITS.IMAGE_VERIFICATION_SUCCESSFUL if len(whole) == self.imageSize else ITS.IMAGE_VERIFICATION_FAILED
    elif e.index == 4:
        log("ACTIVATE")
        if os.environ.get("METER_STAYS"): return None
        self.imageTransferStatus = ITS.IMAGE_ACTIVATION_SUCCESSFUL
        if RESTART == "forgets": self.imageTransferStatus = ITS.IMAGE_TRANSFER_NOT_INITIATED; FIRMWARE.value = "2.0"
        if RESTART: raise Gone()
    else: e.error = ErrorCode.READ_WRITE_DENIED
_o.GXDLMSImageTransfer.invoke = _img
# METER_KEK=HEX: a security setup that takes new keys, wrapped as RFC 3394 says; they hold for every connection after.
# Upstream keeps them for one connection only. A line KEY or POLICY in METER_LOG for each.
from gurux_dlms.objects import GXDLMSSecuritySetup as _SS
KEK = bytes.fromhex(os.environ.get("METER_KEK", "")); KEYS = {}
def _ss(self, settings, e):
    from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
    if e.index == 1: self.securityPolicy = int(e.parameters); log("POLICY %d" % int(e.parameters)); return None
    if e.index != 2: e.error = ErrorCode.READ_WRITE_DENIED; return None
    try: new = [(int(k[0]), aes_key_unwrap(KEK, bytes(k[1]))) for k in e.parameters]
    except Exception: e.error = ErrorCode.READ_WRITE_DENIED; return None
    for number, key in new: log("KEY %d" % number); KEYS[number] = key
_SS.invoke = _ss; _SS.applyKeys = classmethod(lambda cls, settings, e: None)
_img_get = _o.GXDLMSImageTransfer.getValue
def _img_value(self, settings, e):           # what it would run: upstream's list is fed by nobody
    if e.index != 7: return _img_get(self, settings, e)
    out = GXByteBuffer(); out.setUInt8(DataType.ARRAY); whole = self.imageTransferStatus >= ITS.IMAGE_VERIFICATION_SUCCESSFUL
    out.setUInt8(1 if whole else 0); e.byteArray = True
    if whole:
        out.setUInt8(DataType.STRUCTURE); out.setUInt8(3); other = os.environ.get("METER_LISTS"); _GXCommon.setData(settings, out, DataType.UINT32, self.imageSize - (16 if other else 0))
        _GXCommon.setData(settings, out, DataType.OCTET_STRING, b"own" if other else self.called); _GXCommon.setData(settings, out, DataType.OCTET_STRING, b"")
    return out.array()
_o.GXDLMSImageTransfer.getValue = _img_value
FIRMWARE = GXDLMSData("1.0.0.2.0.255"); FIRMWARE.value = "1.0"

# SET in blocks (upstream drops the first one) and ACTION in blocks (upstream has none): put together here, done there.
_set, _act = LNH.handleSetRequest.__func__, LNH.handleMethodRequest.__func__
def _piece(server, data, first):
    if first:
        d = bytearray(9); data.get(d)
        if first == 2: data.getUInt8()       # a SET tells that it has no selection
        server.part = [bytes(d), 0, b""]
    last, number, size = data.getUInt8(), data.getUInt32(), _GXCommon.getObjectCount(data)
    raw = bytearray(size); data.get(raw); d, before, got = server.part
    log("PIECE %d %d" % (number, size))
    if number != before + 1: raise Gone()
    server.part = [d, number, got + bytes(raw)]
    return last, number.to_bytes(4, "big"), d, got + bytes(raw)
def _set_blocks(cls, settings, server, data, reply, xml):
    at = data.position; kind, invoke = data.getUInt8(), data.getUInt8()
    if kind not in (2, 3): data.position = at; return _set(cls, settings, server, data, reply, xml)
    last, number, d, got = _piece(server, data, 2 if kind == 2 else 0)
    if not last: reply.set(bytes([0xC5, 2, invoke]) + number); return
    done = GXByteBuffer(); _set(cls, settings, server, GXByteBuffer(bytearray(bytes([1, invoke]) + d + b"\0" + got)), done, xml)
    reply.set(bytes([0xC5, 3, invoke, bytes(done.array())[-1]]) + number)
def _act_blocks(cls, settings, server, data, info, reply, xml):
    at = data.position; kind, invoke = data.getUInt8(), data.getUInt8()
    if kind not in (4, 6): data.position = at; return _act(cls, settings, server, data, info, reply, xml)
    last, number, d, got = _piece(server, data, 4 if kind == 4 else 0)
    if not last: reply.set(bytes([0xC7, 4, invoke]) + number); return
    _act(cls, settings, server, GXByteBuffer(bytearray(bytes([1, invoke]) + d + b"\1" + got)), info, reply, xml)
LNH.handleSetRequest = classmethod(_set_blocks); LNH.handleMethodRequest = classmethod(_act_blocks)
def more():
    push = _o.GXDLMSPushSetup("0.0.25.9.0.255"); push.randomisationStartInterval = 30; push.numberOfRetries = 3; push.repetitionDelay = 60
    push.destination = "10.0.0.1:4059"; push.pushObjectList.append((GXDLMSClock("0.0.1.0.0.255"), GXDLMSCaptureObject(2, 0)))
    limit = _o.GXDLMSLimiter("0.0.17.0.0.255"); limit.thresholdActive = GXUInt32(5000); limit.thresholdNormal = GXUInt32(5000); limit.thresholdEmergency = GXUInt32(1000)
    limit.minOverThresholdDuration = GXUInt32(60); limit.minUnderThresholdDuration = GXUInt32(30); limit.emergencyProfileActive = False
    for n in (3, 4, 5, 6, 7): limit.setDataType(n, DataType.UINT32)
    bus = _o.GXDLMSMBusClient("0.1.24.1.0.255"); bus.mBusPortReference = "0.0.24.6.0.255"; bus.capturePeriod = GXUInt32(3600)
    bus.primaryAddress = 5; bus.identificationNumber = GXUInt32(12345678); bus.manufacturerID = GXUInt16(0x2C2D); bus.dataHeaderVersion = 1; bus.deviceType = 3
    bus.accessNumber = 7; bus.status = 0; bus.alarm = 0
    for n, t in ((5, DataType.UINT8), (8, DataType.UINT8), (9, DataType.UINT8), (10, DataType.UINT8), (11, DataType.UINT8), (12, DataType.UINT8), (13, DataType.UINT16)): bus.setDataType(n, t)
    def capture(self, settings, e):
        if e.index == 3: self.accessNumber += 1; log("CAPTURE %r" % (e.parameters,))
        else: e.error = ErrorCode.READ_WRITE_DENIED
    _o.GXDLMSMBusClient.invoke = capture
    return [push, limit, bus]
# ---- METER_SN=1: the same meter with short names; repairs of that never exercised half -------
SN = bool(os.environ.get("METER_SN"))
if SN:
    from gurux_dlms.objects import GXDLMSAssociationShortName as ASN
    from gurux_dlms.GXDLMSSNCommandHandler import GXDLMSSNCommandHandler as SNH
    from gurux_dlms.GXDLMSSNParameters import GXDLMSSNParameters
    from gurux_dlms.GXSNInfo import GXSNInfo
    from gurux_dlms.enums import Command as _C
    _asn_get = ASN.getValue
    def _asn(self, settings, e):             # upstream denies every attribute
        e.isSkipMaxPduSize = lambda: True
        v = _asn_get(self, settings, e); e.error = ErrorCode.OK
        if e.index == 2: e.byteArray = True; settings.index = settings.count = 0
        return v
    def _asn_invoke(self, settings, e):
        r = _invoke(self, settings, VE(e))
        if r: settings.connected |= 2
        return r
    ASN.getValue = _asn; ASN.invoke = _asn_invoke
    class VE:                                # method 8 of class 12 is method 1 of class 15
        def __init__(self, e): self._e = e; self.index = 1 if e.index == 8 else 0; self.parameters = e.parameters
        def __setattr__(self, k, v): object.__setattr__(self, k, v); k == "error" and setattr(self._e, k, v)
    def _find(cls, server, settings, sn):    # upstream divides into floats and calls what is no method
        i = GXSNInfo(); i.item = None; i.action = False
        for it in settings.objects:
            d = sn - it.shortName
            if d < 0 or d % 8: continue
            if d // 8 < it.getAttributeCount(): i.item, i.index = it, d // 8 + 1; break
            o, c = [0], [0]; GXDLMS.getActionInfo(it.objectType, o, c)
            if o[0] <= d < o[0] + 8 * c[0]: i.item, i.action, i.index = it, True, (d - o[0]) // 8 + 1; break
        return i
    SNH.findSNObject = classmethod(_find)
    def _read(cls, settings, server, data, reply, xml):      # upstream calls server.transaction(), a property
        cnt, targets = _GXCommon.getObjectCount(data), []
        for _ in range(cnt):
            t = data.getUInt8()
            if t == 5: return _block(settings, server, data.getUInt16(), reply)
            cls.handleRead(settings, server, t, data, targets, [], [], reply, None)
        bb = GXByteBuffer(); kind = cls.getReadData(settings, targets, bb)
        p = GXDLMSSNParameters(settings, _C.READ_RESPONSE, cnt, kind, None, bb)
        if len(bb) + 8 > settings.maxPduSize: server.rest = bytes(bb); _block(settings, server, 0, reply)
        else: GXDLMS.getSNPdu(p, reply)
    def _block(settings, server, number, reply):
        size = settings.maxPduSize - 10; part = server.rest[number * size:(number + 1) * size]
        last = (number + 1) * size >= len(server.rest)
        reply.set(bytes([0x0C, 1, 2, int(last)]) + (number + 1).to_bytes(2, "big"))
        _GXCommon.setObjectCount(len(part), reply); reply.set(part)
    SNH.handleReadRequest = classmethod(_read)
    from gurux_dlms.internal._GXDataInfo import _GXDataInfo
    def _write_short(cls, settings, server, data, reply, xml):      # upstream writes methods as attributes
        found, out = [], b""
        for _ in range(_GXCommon.getObjectCount(data)):
            data.getUInt8(); found.append(cls.findSNObject(server, settings, data.getUInt16()))
        for i in found[:_GXCommon.getObjectCount(data)]:
            value = _GXCommon.getData(settings, data, _GXDataInfo())
            if i.item is None: out += bytes([1, int(ErrorCode.UNDEFINED_OBJECT)]); continue
            e = VEA(server, i.item, i.index, 0, None); e.value = e.parameters = value
            (i.item.invoke if i.action else i.item.setValue)(settings, e)
            out += bytes([1, int(e.error)]) if e.error else b"\0"
        reply.set(bytes([0x0D, len(found)]) + out)
    SNH.handleWriteRequest = classmethod(_write_short)

# METER_NATURE=FILE: JSON that is looked at with every attribute; the same meter becomes another one when it changes:
#   "refuse": {"3/1.0.1.8.0.255/3": 2}     the access error of an attribute
#   "raw": {"1/0.0.42.0.0.255/2": "0A02.."} an attribute's value as it is coded
#   "clock": {"at": "2026-01-15T12:00:00", "deviation": -60, "status": 0, "weekday": 255, "read_only": 1} a clock that runs
#   "rows": [["2026-01-01T00:00:00", ["090C..", "06.."]], ..] the buffer of 1.0.99.1.0.255, each cell as it is coded
#   "no_range": 1                          selection by range is refused
#   "then": {..}                           what it becomes as soon as that buffer is asked for
import json, time
NATURE = os.environ.get("METER_NATURE"); SEEN = {"text": None, "nature": {}}; TICK = {"at": None, "begun": 0}
def nature():
    with open(NATURE) as f: text = f.read()
    if text != SEEN["text"]:
        old = SEEN["nature"].get("clock"); SEEN["text"], SEEN["nature"] = text, json.loads(text)
        c = SEEN["nature"].get("clock")
        if c and c != old: TICK["at"] = datetime.datetime.fromisoformat(c["at"]); TICK["begun"] = time.monotonic()
    return SEEN["nature"]
def shows(): return TICK["at"] + datetime.timedelta(seconds=time.monotonic() - TICK["begun"])
def face(c):
    t, d = shows(), c.get("deviation", -32768) & 0xFFFF
    week = c.get("weekday", t.isoweekday())
    return bytes([9, 12, t.year >> 8, t.year & 255, t.month, t.day, week, t.hour, t.minute, t.second, c.get("hundredths", 255), d >> 8, d & 255, c.get("status", 0)])
def row(cells): return b"\x02" + bytes([len(cells)]) + b"".join(bytes.fromhex(c) for c in cells)
def chosen(rows, n, e):
    if "then" in n:                          # it becomes another one between the look and the buffer
        with open(NATURE, "w") as f: json.dump(n["then"], f)
        return chosen(n["then"]["rows"], n["then"], e)
    if e.selector == 1:
        if n.get("no_range"): return None
        f, t = _dt(e.parameters[1]), _dt(e.parameters[2]); log("RANGE %s %s" % (f, t))
        rows = [r for r in rows if f <= datetime.datetime.fromisoformat(r[0]) <= t]
    elif e.selector == 2:
        a, b, c, d = [int(x) for x in e.parameters]; log("ENTRIES %d %d %d %d" % (a, b, c, d))
        rows = [[r[0], r[1][max(c, 1) - 1:d or None]] for r in rows[a - 1:b or None]]
    return [row(r[1]) for r in rows]
def natural(o):
    get, put = o.getValue, o.setValue
    key = lambda e: "%d/%s/%d" % (int(o.objectType), o.logicalName, e.index)
    def value(settings, e):
        n, k, out = nature(), key(e), None
        if k in n.get("refuse", {}): e.error = ErrorCode(n["refuse"][k]); return None
        if k in n.get("raw", {}): out = bytes.fromhex(n["raw"][k])
        elif k == "8/0.0.1.0.0.255/2" and "clock" in n: out = face(n["clock"])
        elif k == "7/1.0.99.1.0.255/7" and "rows" in n: out = b"\x06" + len(n["rows"]).to_bytes(4, "big")
        elif k == "7/1.0.99.1.0.255/2" and "rows" in n:
            rows = chosen(n["rows"], n, e)
            if rows is None: e.error = ErrorCode.OTHER_REASON; return None
            b = GXByteBuffer(); b.setUInt8(1); _GXCommon.setObjectCount(len(rows), b); b.set(b"".join(rows)); out = bytes(b.array())
        if out is None: return get(settings, e)
        e.byteArray = True; settings.index = settings.count = 0
        return bytearray(out)
    def write(settings, e):
        n = nature()
        if key(e) == "8/0.0.1.0.0.255/2" and "clock" in n:
            if n["clock"].get("read_only"): raise ValueError("upstream answers this with a hardware fault")
            log("CLOCK %s %s" % (bytes(e.value).hex(), shows().isoformat(timespec="seconds")))
            TICK["at"], TICK["begun"] = _dt(e.value), time.monotonic()
            return
        put(settings, e)
    o.getValue, o.setValue = value, write

class SR:                                   # stand-in for GXServerReply (upstream misses setters)
    def __init__(self, data): self.data = data; self.reply = None; self.count = 0; self.connectionInfo = None
    def setReply(self, v): self.reply = v
    def getReply(self): return self.reply
    def getConnectionInfo(self): return self.connectionInfo
    def isStreaming(self): return self.count != 0
    def setCount(self, v): self.count = v
    def getCount(self): return self.count

class Hdlc:                                 # has both attribute sets that GXDLMSServer mixes up
    def __init__(self, h): self._h = h; self.inactivityTimeout = 0
    maxInfoTX = property(lambda s: s._h.maxInfoTX); maxInfoRX = property(lambda s: s._h.maxInfoRX)
    windowSizeTX = property(lambda s: s._h.windowSizeTX); windowSizeRX = property(lambda s: s._h.windowSizeRX)
    maximumInfoLengthReceive = 128; maximumInfoLengthTransmit = 128
    windowSizeReceive = 1; windowSizeTransmit = 1

class Meter(GXDLMSSecureServer):
    def __init__(self, iface, store):
        super().__init__(not SN, iface)
        self.store = store
        for o in store:
            self.items.append(o)
        self.settings.cipher = self.settings.ciphering        # upstream bug: two names
        self.settings.cipher.systemTitle = b"GRX\x00\x00\x00\x00\x01"
        self.settings.cipher.invocationCounter = 1
        if os.environ.get("METER_SUITE") == "2":
            self.settings.cipher.securitySuite = SecuritySuite(2)
            self.settings.cipher.blockCipherKey = bytes(range(0, 32))
            self.settings.cipher.authenticationKey = bytes(range(0xD0, 0xF0))
        self.settings.cipher.blockCipherKey = KEYS.get(0, self.settings.cipher.blockCipherKey)
        self.settings.cipher.authenticationKey = KEYS.get(2, self.settings.cipher.authenticationKey)
        self.hdlc = Hdlc(self.settings.hdlc)
        self.settings.maxServerPDUSize = 1024
        self.initialize()
    # --- addressing / auth -------------------------------------------------
    def isTarget(self, serverAddress, clientAddress):
        ok = clientAddress in (16, 17, 18, 1, 19, 20, 21)
        # METER_SECURITY=16, 32 or 48: a tag, ciphertext, or both.
        security = Security(int(os.environ.get("METER_SECURITY", "48")))
        self.settings.cipher.security = security if clientAddress == 1 else Security.NONE
        return ok
    def onValidateAuthentication(self, authentication, password):
        log("AARQ %d" % self.settings.clientAddress)
        want = {16: Authentication.NONE, 17: Authentication.LOW, 18: Authentication.HIGH,
                19: Authentication.HIGH_MD5, 20: Authentication.HIGH_SHA1, 21: Authentication.HIGH_SHA256,
                1: Authentication.HIGH_GMAC}[self.settings.clientAddress]
        self.settings.maxPduSize = min(self.settings.maxPduSize, int(os.environ.get("METER_PDU", "512")))
        if authentication != want:
            return SourceDiagnostic.AUTHENTICATION_MECHANISM_NAME_NOT_RECOGNISED
        if authentication == Authentication.LOW and bytes(password or b"") != b"Gurux":
            return SourceDiagnostic.AUTHENTICATION_FAILURE
        return SourceDiagnostic.NONE
    def handleCommand(self, cmd, data, sr):
        try:
            return super().handleCommand(cmd, data, sr)
        except Exception:
            if VERBOSE: traceback.print_exc()
            raise
    def handleReleaseRequest(self, data):
        if self.settings.interfaceType == InterfaceType.HDLC: self.replyData.set(b"\xE6\xE7\x00")
        self.replyData.set(b"\x63\x03\x80\x01\x00")
    def onFindObject(self, objectType, sn, ln): return None
    def onPreRead(self, args): pass
    def onPostRead(self, args=None): pass
    def notifyRead(self): pass
    def notifyConnected(self, ci): pass
    def getTransaction(self): return self.transaction
    def setTransaction(self, t): self.transaction = t
    def onPreWrite(self, args): pass
    def onPostWrite(self, args): pass
    def onPreGet(self, args): pass
    def onPostGet(self, args): pass
    def onPreAction(self, args): pass
    def onPostAction(self, args): pass
    def onConnected(self, ci): pass
    def onInvalidConnection(self, ci): pass
    def onDisconnected(self, ci): pass
    def onGetAttributeAccess(self, arg): return AccessMode.READ_WRITE
    def onGetMethodAccess(self, arg): return MethodAccessMode.ACCESS

def few(imp, clock):
    """METER_FEW=1: objects that few meters have, in other shapes than METER_MORE's."""
    push = GXDLMSPushSetup("0.7.25.9.0.255"); push.version = 0
    push.pushObjectList.append((imp, GXDLMSCaptureObject(2, 0)))
    push.pushObjectList.append((clock, GXDLMSCaptureObject(2, 0)))
    push.destination = "10.0.0.1:4059"; push.numberOfRetries = 3; push.repetitionDelay = 60
    limit = GXDLMSLimiter("0.0.17.0.0.255"); limit.monitoredValue = imp; limit.monitoredAttributeIndex = 2
    limit.thresholdActive = limit.thresholdNormal = GXUInt32(5000); limit.thresholdEmergency = GXUInt32(1000)
    limit.minOverThresholdDuration, limit.minUnderThresholdDuration = 60, 30
    limit.setDataType(3, DataType.UINT32); limit.setDataType(4, DataType.UINT32); limit.setDataType(5, DataType.UINT32)
    bus = GXDLMSMBusClient("0.1.24.1.0.255"); bus.version = 1
    bus.mBusPortReference = "0.1.24.6.0.255"
    bus.capturePeriod, bus.primaryAddress, bus.identificationNumber, bus.manufacturerID = 3600, 3, 12345678, 0x32A7
    bus.dataHeaderVersion, bus.deviceType, bus.accessNumber, bus.status, bus.alarm = 4, 7, 85, 0, 0
    return [push, limit, bus]

def build(name="GRX0000000000001"):
    clock = GXDLMSClock("0.0.1.0.0.255")
    clock.time = GXDateTime(datetime.datetime(2026, 1, 15, 12, 0, 0))
    ldn = GXDLMSData("0.0.42.0.0.255"); ldn.value = name
    imp = GXDLMSRegister("1.0.1.8.0.255"); imp.value = GXUInt32(1234567); imp.scaler = 0.1; imp.unit = Unit.ACTIVE_ENERGY
    v = GXDLMSRegister("1.0.32.7.0.255"); v.value = GXUInt16(2304); v.scaler = 0.1; v.unit = Unit.VOLTAGE
    ic = GXDLMSData("0.0.43.1.0.255"); ic.value = GXUInt32(0)
    pg = GXDLMSProfileGeneric("1.0.99.1.0.255")
    pg.capturePeriod = 900
    pg.captureObjects.append((clock, GXDLMSCaptureObject(2, 0)))
    pg.captureObjects.append((imp, GXDLMSCaptureObject(2, 0)))
    t = datetime.datetime(2026, 1, 1)
    for i in range(200):
        pg.buffer.append([GXDateTime(t + datetime.timedelta(minutes=15 * i)), GXUInt32(1000000 + 25 * i)])
    pg.entriesInUse = pg.profileEntries = len(pg.buffer)
    dc = GXDLMSDisconnectControl("0.0.96.3.10.255"); dc.outputState = True; dc.controlState = ControlState.CONNECTED
    mx = GXDLMSExtendedRegister("1.0.1.6.0.255"); mx.value = GXUInt32(525); mx.scaler = 10; mx.unit = Unit.ACTIVE_POWER
    mx.captureTime = GXDateTime(datetime.datetime(2026, 1, 14, 17, 45, 0)); mx.status = GXUInt16(0)
    dr = GXDLMSDemandRegister("1.0.1.4.0.255"); dr.currentAverageValue = GXUInt32(123); dr.lastAverageValue = GXUInt32(456)
    dr.setDataType(2, DataType.UINT32); dr.setDataType(3, DataType.UINT32)
    dr.scaler = 0.1; dr.unit = Unit.ACTIVE_POWER; dr.period = 900; dr.numberOfPeriods = 1
    dr.captureTime = dr.startTimeCurrent = GXDateTime(datetime.datetime(2026, 1, 14, 17, 45, 0))
    img = GXDLMSImageTransfer("0.0.44.0.0.255"); img.imageBlockSize = int(os.environ.get("METER_BLOCK", "64"))
    aln = GXDLMSAssociationLogicalName("0.0.40.0.0.255")
    if SN: aln = ASN("0.0.40.0.0.255"); aln.shortName = 0xFA00; aln.version = 2
    aln.secret = b"Gurux"
    if STRICT: ic.value = GXUInt32(LAST["ic"])
    objs = [ldn, clock, imp, v, ic, pg, dc, mx, dr, img]
    if os.environ.get("METER_MORE"): objs += more()
    if os.environ.get("METER_FEW"): objs += few(imp, clock)
    if KEEP: objs.append(FIRMWARE)
    objs.append(aln)
    if NATURE: objs[-1:-1] = [GXDLMSLimiter("0.0.17.0.0.255"), GXDLMSRegisterMonitor("0.0.16.1.0.255"), GXDLMSData("0.0.96.1.0.255")]
    if KEK: objs.append(_SS("0.0.43.0.0.255"))
    if SN:
        for n, o in enumerate(objs[:-1]): o.shortName = 0x100 * (n + 1)
    if NATURE:
        for o in objs: natural(o)
    if os.environ.get("METER_BLIND"): objs.remove(ic)
    for o in objs:
        aln.objectList.append(o)             # upstream initialize() would append a list -> TypeError
    return objs

# METER_DEVICES=N: so many logical devices behind the line, 1 to N, the others of which end their names in their number.
KEEP = os.environ.get("METER_KEEP")
DEVICES = int(os.environ.get("METER_DEVICES", "1"))
STORES = {}
def store(n):
    if n not in STORES or not KEEP: STORES[n] = build("GRX%013d" % n)
    return STORES[n]
def logical(iface, data):
    if iface == InterfaceType.WRAPPER: return int.from_bytes(data[4:6], "big")
    width = next((n + 1 for n, b in enumerate(data[3:7]) if b & 1), 1)
    return data[3] >> 1 if width < 4 else (data[3] >> 1) << 7 | data[4] >> 1

def pump(iface, rd, wr):
    all = {n: Meter(iface, store(n)) for n in range(1, DEVICES + 1)}
    while True:
        data = rd()
        if not data:
            for m in all.values(): m.reset()
            return
        n = logical(iface, data) if DEVICES > 1 else 1
        if n not in all: continue
        m = all[n]
        if VERBOSE: print("RX", data.hex(" "), file=sys.stderr, flush=True)
        sr = SR(data)
        try:
            while True:
                m.handleRequest(sr)
                if sr.reply:
                    if VERBOSE: print("TX", bytes(sr.reply).hex(" "), file=sys.stderr, flush=True)
                    wr(bytes(sr.reply)); sr.reply = None
                if not sr.isStreaming(): break
        except Stale:
            answer = stale(data)
            all[n] = Meter(iface, store(n))
            if answer: wr(answer)
        except Gone: return
        except Exception:
            traceback.print_exc()

def serve_tcp(port, iface):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", port)); s.listen(4); print("ready", flush=True)
    while True:
        c, _ = s.accept()
        try: pump(iface, lambda: c.recv(4096), c.sendall)
        except Exception: traceback.print_exc()
        c.close()

if __name__ == "__main__":
    ap = argparse.ArgumentParser()
    ap.add_argument("--wrapper", type=int); ap.add_argument("--hdlc", type=int); ap.add_argument("--tty")
    a = ap.parse_args()
    ts = []
    if a.wrapper: ts.append(threading.Thread(target=serve_tcp, args=(a.wrapper, InterfaceType.WRAPPER)))
    if a.hdlc: ts.append(threading.Thread(target=serve_tcp, args=(a.hdlc, InterfaceType.HDLC)))
    if a.tty:
        def ser():
            fd = os.open(a.tty, os.O_RDWR | os.O_NOCTTY); tty.setraw(fd); print("ready", flush=True)
            pump(InterfaceType.HDLC, lambda: os.read(fd, 4096), lambda b: os.write(fd, b))
        ts.append(threading.Thread(target=ser))
    for t in ts: t.daemon = True; t.start()
    for t in ts: t.join()
