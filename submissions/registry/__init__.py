"""`docker push` as a way in: a private registry, who may push what to it, and how a push becomes an entry."""
