//! lvs-ipvs
