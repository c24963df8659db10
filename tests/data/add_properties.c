/* A mosquitto plugin for the tests: behind what a sender has written, each message gets the broker's own word of when it
 * came and from whom, as the user properties that mosquitto's example plugin `add_properties` is known for. Built from
 * the broker's documented plugin interface (mosquitto_plugin.h, version 5). */

#include <stdio.h>
#include <time.h>

#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

enum { PLUGIN_INTERFACE = 5, SUCCESS = 0, USER_PROPERTY = 38 /* MQTT 5, 2.2.2.2 */ };

/* libmosquitto's header has it, which is a package of its own; the broker exports it. */
int mosquitto_property_add_string_pair(mosquitto_property **list, int identifier, const char *name, const char *value);

static mosquitto_plugin_id_t *self;

static int append(struct mosquitto_evt_message *message, const char *name, const char *value) {
    return value ? mosquitto_property_add_string_pair(&message->properties, USER_PROPERTY, name, value) : SUCCESS;
}

static int on_message(int event, void *data, void *unused) {
    struct mosquitto_evt_message *message = data;
    struct timespec now;
    char text[32];
    int rc;
    (void)event;
    (void)unused;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(text, sizeof text, "%lld.%09ld", (long long)now.tv_sec, now.tv_nsec);
    if ((rc = append(message, "$timestamp", text)) != SUCCESS)
        return rc;
    if ((rc = append(message, "$client_id", mosquitto_client_id(message->client))) != SUCCESS)
        return rc;
    return append(message, "$client_username", mosquitto_client_username(message->client));
}

int mosquitto_plugin_version(int count, const int *versions) {
    for (int i = 0; i < count; i++)
        if (versions[i] == PLUGIN_INTERFACE)
            return PLUGIN_INTERFACE;
    return -1;
}

int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **data, struct mosquitto_opt *options, int count) {
    (void)data;
    (void)options;
    (void)count;
    self = identifier;
    return mosquitto_callback_register(self, MOSQ_EVT_MESSAGE, on_message, NULL, NULL);
}

int mosquitto_plugin_cleanup(void *data, struct mosquitto_opt *options, int count) {
    (void)data;
    (void)options;
    (void)count;
    return mosquitto_callback_unregister(self, MOSQ_EVT_MESSAGE, on_message, NULL);
}
