/* The sketch on a simulated ATmega328P (simavr) with the simulated chip on its I2C: what the UART sends goes to standard
 * output. Argument: the ELF file. */
#include <simavr/avr_twi.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <stdio.h>

#include "ina219.h"

enum { ADDRESS = 0x40, HERTZ = 16000000 };

static ina219 chip;
static avr_irq_t *wire;
static int selected; /* the address byte, read or write, of who talks to the chip; 0: nobody */

static void on_wire(avr_irq_t *irq, uint32_t value, void *unused) {
    avr_twi_msg_irq_t message;
    (void)irq, (void)unused;
    message.u.v = value;
    if (message.u.twi.msg & TWI_COND_STOP)
        selected = 0;
    if (message.u.twi.msg & TWI_COND_START) {
        selected = message.u.twi.addr >> 1 == ADDRESS && !chip.gone ? message.u.twi.addr : 0;
        ina219_start(&chip);
        if (selected)
            avr_raise_irq(wire + TWI_IRQ_INPUT, avr_twi_irq_msg(TWI_COND_ACK, (uint8_t)selected, 1));
    }
    if (selected && message.u.twi.msg & TWI_COND_WRITE) {
        avr_raise_irq(wire + TWI_IRQ_INPUT, avr_twi_irq_msg(TWI_COND_ACK, (uint8_t)selected, 1));
        ina219_write(&chip, message.u.twi.data);
    }
    if (selected && message.u.twi.msg & TWI_COND_READ) {
        const uint8_t data = ina219_read(&chip);
        avr_raise_irq(wire + TWI_IRQ_INPUT, avr_twi_irq_msg(TWI_COND_READ, (uint8_t)selected, data));
    }
}

static void on_uart(avr_irq_t *irq, uint32_t value, void *unused) {
    (void)irq, (void)unused;
    putchar((int)value);
}

int main(int count, char **arguments) {
    static const char *names[] = {"8>in", "32<out"};
    elf_firmware_t firmware = {0};
    if (count != 2 || elf_read_firmware(arguments[1], &firmware) != 0)
        return 2;
    avr_t *avr = avr_make_mcu_by_name("atmega328p");
    avr_init(avr);
    avr->frequency = HERTZ;
    avr->log = 0;
    avr_load_firmware(avr, &firmware);
    avr->frequency = HERTZ;
    uint32_t flags = 0;
    avr_ioctl(avr, AVR_IOCTL_UART_GET_FLAGS('0'), &flags);
    flags &= ~(uint32_t)AVR_UART_FLAG_STDIO;
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), on_uart, NULL);
    wire = avr_alloc_irq(&avr->irq_pool, 0, 2, names);
    avr_irq_register_notify(wire + TWI_IRQ_OUTPUT, on_wire, NULL);
    avr_connect_irq(wire + TWI_IRQ_INPUT, avr_io_getirq(avr, AVR_IOCTL_TWI_GETIRQ(0), TWI_IRQ_INPUT));
    avr_connect_irq(avr_io_getirq(avr, AVR_IOCTL_TWI_GETIRQ(0), TWI_IRQ_OUTPUT), wire + TWI_IRQ_OUTPUT);
    ina219_reset(&chip);
    avr_cycle_count_t then = 0;
    for (int state = cpu_Running; state != cpu_Done && state != cpu_Crashed;) {
        state = avr_run(avr);
        ina219_pass(&chip, (double)(avr->cycle - then) * 1000 / HERTZ);
        then = avr->cycle;
    }
    return 1;
}
