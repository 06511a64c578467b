from core.store import favourites, listing, users
from core.store.models import Role
from tests import factories


def test_a_star_is_personal_and_filters_the_list(session):
    first, second, third = (factories.submit(session, name=name) for name in "abc")
    ann, ben = users.enrol(session, "ann").id, users.enrol(session, "ben").id
    users.set_role(session, ann, first.project_id, Role.MEMBER)
    favourites.star(session, ann, [first.id, third.id])
    favourites.star(session, ann, [first.id])
    favourites.star(session, ben, [second.id])
    every = [first.id, second.id, third.id]
    assert favourites.find_starred(session, ann, every) == {first.id, third.id}
    of_ann = listing.RunFilter(first.project_id, starred_by=ann)
    assert [row.id for row in listing.list_runs(session, of_ann)] == [third.id, first.id]
    assert listing.count_runs(session, of_ann) == 2
    favourites.unstar(session, ann, [first.id, second.id])
    assert favourites.find_starred(session, ann, every) == {third.id}
    assert favourites.find_starred(session, ben, every) == {second.id}
