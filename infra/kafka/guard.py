"""What the brokers of a cluster that asks who comes are told, and how whoever administers it comes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Guard:
    """A cluster that asks who comes, and lets nobody do what no access list allows.

    Clients come by SASL_SSL (SCRAM); brokers among themselves, and whoever administers from this machine, by TLS with
    the certificate of `broker_pem` (certificate and key in one file), which `ca_pem` signed.
    """

    ca_pem: Path
    broker_pem: Path
    broker_principal: str  # the certificate's name, as Kafka says it: User:CN=...

    def administrator(self) -> dict[str, str]:
        """How a client comes as the brokers themselves do, at the cluster's `administration`."""
        return {
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.ca_pem),
            "ssl.certificate.location": str(self.broker_pem),
            "ssl.key.location": str(self.broker_pem),
        }

    def settings(self, port: int, broker_port: int, controller_port: int) -> dict[str, str | Path]:
        """What a node of it is told in place of, and beside, an open one's settings."""
        return {
            "listeners": f"CLIENT://127.0.0.1:{port},BROKER://127.0.0.1:{broker_port}"
            f",CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"CLIENT://127.0.0.1:{port},BROKER://127.0.0.1:{broker_port}",
            "listener.security.protocol.map": "CLIENT:SASL_SSL,BROKER:SSL,CONTROLLER:SSL",
            "inter.broker.listener.name": "BROKER",
            "listener.name.broker.ssl.client.auth": "required",
            "listener.name.controller.ssl.client.auth": "required",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.broker_pem,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.ca_pem,
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.client.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": self.broker_principal,
        }
