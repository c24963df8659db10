/* A power meter: an INA219 says what a device draws, an Arduino passes it on over USB as lines that edgebit reads.
 *
 * Any Arduino with I2C, and a breakout of the INA219: VCC, GND, SDA and SCL to the pins of the same names; the supply's
 * plus to VIN+, the device's plus to VIN-, the supply's minus to the device's and to GND. Not more than 26 V, and not
 * more than 0.32 V over the shunt: 3.2 A with the usual 0.1 ohm, which then takes 0.32 V from the device. A device of
 * 5 V and 3 A wants a smaller one, such as 0.01 ohm; write it below.
 *
 * The lines are described in edgebit's documentation, docs/sensors.md. On the device, in edgebitd.toml:
 *     [power]
 *     port = "/dev/ttyUSB0"      (or /dev/ttyACM0)
 */
#include <Wire.h>

const uint8_t ADDRESS = 0x40;         // with A0 and A1 as the board comes
const int32_t SHUNT_MILLIOHM = 100;   // "R100" on the resistor
const uint32_t BAUD = 115200;

const uint8_t CONFIGURATION = 0, SHUNT_VOLTAGE = 1, BUS_VOLTAGE = 2, POWER = 3;
const uint16_t SETTINGS = 0x3DFF;     // 32 V, 320 mV; volts over 4 ms, then the current over 68 ms; again and again
const uint16_t CONVERSION_READY = 2;  // in BUS_VOLTAGE, until POWER is read
const int16_t SHUNT_MOST = 32000;     // in steps of 10 uV: the end of the range
const uint16_t WAIT_MS = 500;         // for a measurement that takes 72

char line[64];
uint8_t length;

void say(const char *text) {
    while (*text && length < sizeof line)
        line[length++] = *text++;
}

/* A number of ten-thousandths: 8420 is 0.8420. */
void sayTenThousandths(int32_t value) {
    char digits[12];
    uint8_t count = 0;
    uint32_t rest = value < 0 ? 0 - (uint32_t)value : (uint32_t)value;
    do {
        digits[count++] = (char)('0' + rest % 10);
        rest /= 10;
        if (count == 4)
            digits[count++] = '.';
    } while (rest || count < 6);
    if (value < 0)
        say("-");
    while (count && length < sizeof line)
        line[length++] = digits[--count];
}

/* Ends the line with its checksum, all bytes XORed, and sends it. */
void sendSample(int32_t millivolts, int32_t microamperes) {
    length = 0;
    say("EB1 V=");
    sayTenThousandths(millivolts * 10);
    say(" A=");
    sayTenThousandths(microamperes / 100);
    say(" W=");
    sayTenThousandths((int32_t)((int64_t)millivolts * microamperes / 100000));
    uint8_t sum = 0;
    for (uint8_t at = 0; at < length; at++)
        sum ^= (uint8_t)line[at];
    const char hex[] = "0123456789ABCDEF";
    const char end[] = {'*', hex[sum >> 4], hex[sum & 15], '\n', 0};
    say(end);
    Serial.write((const uint8_t *)line, length);
}

/* Why there is no sample; edgebit shows it. */
void complain(const char *why) {
    length = 0;
    say("# ");
    say(why);
    say("\n");
    Serial.write((const uint8_t *)line, length);
}

bool writeRegister(uint8_t which, uint16_t value) {
    Wire.beginTransmission(ADDRESS);
    Wire.write(which);
    Wire.write((uint8_t)(value >> 8));
    Wire.write((uint8_t)(value & 255));
    return Wire.endTransmission() == 0;
}

bool readRegister(uint8_t which, uint16_t *value) {
    Wire.beginTransmission(ADDRESS);
    Wire.write(which);
    if (Wire.endTransmission() != 0 || Wire.requestFrom(ADDRESS, (uint8_t)2) != 2)
        return false;
    const uint8_t high = (uint8_t)Wire.read();
    *value = (uint16_t)((uint16_t)high << 8 | (uint8_t)Wire.read());
    return true;
}

void setup() {
    Serial.begin(BAUD);
    Wire.begin();
}

/* One measurement. The chip is set up anew for each: it may have lost its supply meanwhile. */
void loop() {
    uint16_t bus = 0, shunt = 0, ignored = 0;
    if (!writeRegister(CONFIGURATION, SETTINGS)) {
        complain("no INA219 answers");
        delay(WAIT_MS);
        return;
    }
    for (uint16_t waited = 0; !(bus & CONVERSION_READY); waited++) {
        if (waited == WAIT_MS) {
            complain("the INA219 measures nothing");
            return;
        }
        delay(1);
        if (!readRegister(BUS_VOLTAGE, &bus))
            return;
    }
    if (!readRegister(SHUNT_VOLTAGE, &shunt) || !readRegister(POWER, &ignored))
        return;
    const int16_t tensOfMicrovolts = (int16_t)shunt;
    if (tensOfMicrovolts >= SHUNT_MOST || tensOfMicrovolts <= -SHUNT_MOST) {
        complain("more current than the shunt is for");
        return;
    }
    sendSample((int32_t)(bus >> 3) * 4, (int32_t)tensOfMicrovolts * 10000 / SHUNT_MILLIOHM);
}
