"""All parts, in the order in which they are put right."""

from __future__ import annotations

from deploy.setup import code, machine, triggers, trust
from deploy.setup.site import Part

# What may have to wait for a person, who enters a key somewhere, comes behind what need not.
PARTS = (
    Part("programs", (), machine.programs_missing, machine.install_programs),
    Part("folders", (), machine.folders_missing, machine.make_folders),
    Part("environment", ("folders",), machine.environment_missing, machine.make_environment),
    # It makes its folder itself, so that a plan for a bare host sees what stands in its way.
    Part("timer", ("programs",), machine.timer_missing, machine.set_timer),
    Part(
        "push",
        ("programs", "folders"),
        triggers.push_missing,
        triggers.provide_push,
        triggers.push_told,
    ),
    Part(
        "listener",
        ("push",),
        triggers.listener_missing,
        triggers.provide_listener,
        triggers.listener_told,
    ),
    Part("key", ("programs", "folders"), code.key_missing, code.make_key, code.key_told),
    Part("trust", ("programs", "folders"), trust.missing, trust.pin, trust.told),
    Part("clone", ("key", "trust"), code.clone_missing, code.clone),
    Part("identity", ("clone",), code.identity_missing, code.set_identity),
)
