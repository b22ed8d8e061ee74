//! The connection core of inferkit: one driver seam over Redis clients, with keys, scripts, leases and errors
