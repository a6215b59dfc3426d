"""Whether a worker still gets on."""

from hvdtrain.distributed.activity import Activity


def health(activity: Activity, stuck_seconds: float) -> tuple[bool, str]:
    """Whether it has got on within `stuck_seconds`, and a line that says it."""
    idle = activity.idle_seconds
    if idle > stuck_seconds:
        doing = f" in {activity.phase}" + (f", waiting for {activity.collective}" if activity.collective else "")
        return False, f"stuck: nothing done for {idle:.0f} s{doing}; metrics.stuck_seconds = {stuck_seconds:g}"
    return True, f"healthy: last progress {idle:.1f} s ago"
