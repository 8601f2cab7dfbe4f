"""Ciphers one push with libraries nobody here wrote.

python dlms_push.py glo|ded|general SUITE COUNTER APDU (hex) -> the ciphered APDU in hex on standard output.
The system title is WEI00000001, the keys are AA... and 11..., 16 bytes or, with suite 2, 32. `glo` is coded and ciphered by
dlms-cosem, `ded` by gurux-dlms; of `general` (general-ciphering with the key left open) gurux-dlms makes ciphertext and tag
over its head, which this script writes before them as IEC 62056-5-3 says.
"""
import sys

form, suite, counter, apdu = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), bytes.fromhex(sys.argv[4])
title, recipient = b"WEI\0\0\0\0\x01", b"WEI\0\0\0\0\x02"
length = 32 if suite == 2 else 16
encryption, authentication = b"\xAA" * length, b"\x11" * length


def sized(octets):
    head = bytes([len(octets)]) if len(octets) < 128 else b"\x82" + len(octets).to_bytes(2, "big")
    return head + bytes(octets)


if form == "glo":
    from dlms_cosem.protocol.xdlms.general_global_cipher import GeneralGlobalCipher
    from dlms_cosem.security import SecurityControlField, encrypt

    control = SecurityControlField(security_suite=suite, authenticated=True, encrypted=True)
    text = encrypt(control, title, counter, encryption, apdu, authentication)
    message = GeneralGlobalCipher(title, control, counter, text).to_bytes()
else:
    from gurux_dlms.AesGcmParameter import AesGcmParameter
    from gurux_dlms.CountType import CountType
    from gurux_dlms.enums import Command, Security
    from gurux_dlms.GXDLMSChippering import GXDLMSChippering
    from gurux_dlms.objects.enums import SecuritySuite

    tag = Command.GENERAL_DED_CIPHERING if form == "ded" else Command.GENERAL_CIPHERING
    p = AesGcmParameter(tag, bytearray(title), bytearray(encryption), bytearray(authentication))
    p.security, p.securitySuite = Security.AUTHENTICATION_ENCRYPTION, SecuritySuite(suite)
    p.invocationCounter = counter
    p.type_ = CountType.PACKET if form == "ded" else CountType.DATA | CountType.TAG
    if form == "general":
        p.recipientSystemTitle = bytearray(recipient)
    message = bytes(GXDLMSChippering.encryptAesGcm(p, bytearray(apdu)))
    if form == "general":
        head = sized(counter.to_bytes(8, "big")) + sized(title) + sized(recipient) + sized(b"") + sized(b"")
        content = bytes([0x30 | suite]) + counter.to_bytes(4, "big") + message
        message = bytes([0xDD]) + head + b"\0" + sized(content)
print(message.hex())
