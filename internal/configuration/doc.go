// Package configuration keeps a node's Machine and lets it be changed: what differs, a trial that is taken
// back unless the change is confirmed, and the history to return to. It writes files and asks for a restart
// of the daemon; it configures nothing itself. It depends on the objects and on durable files.
package configuration
