"""Stand-ins for the services that wetmap talks to; loopback only."""
